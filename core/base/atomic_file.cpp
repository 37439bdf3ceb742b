#include "core/base/atomic_file.h"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/file.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporarySuffix = ".tmp-";

fs::path temporary_beside(const fs::path& path) {
  fs::path temporary = path;
  temporary += kTemporarySuffix;
  temporary += std::to_string(::getpid());
  return temporary;
}

// Absolute and without a slash at its end, so that a name can be put beside it.
fs::path plain_directory(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

// What makes a rename last through a power failure. Some file systems cannot flush a directory (EINVAL).
void flush_directory(const fs::path& directory) {
  const int opened = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (opened < 0) fail_to_write(directory, errno);
  const int error = ::fsync(opened) == 0 ? 0 : errno;
  ::close(opened);
  if (error != 0 && error != EINVAL) fail_to_write(directory, error);
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_to_write(to, errno);
}

// After this `temporary` holds what was at `destination`.
void exchange(const fs::path& temporary, const fs::path& destination) {
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, destination.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail_to_write(destination, errno);
  fs::path aside = temporary;
  aside += "-old";
  rename_or_fail(destination, aside);
  rename_or_fail(temporary, destination);
  rename_or_fail(aside, temporary);
}

[[noreturn]] void fail_as_there_meanwhile(const fs::path& path) {
  fail_input("{}: was written by another process meanwhile and is not replaced; name a new file or directory",
             path.string());
}

// Takes a place where nothing is by an empty file.
void claim(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0 && errno == EEXIST) fail_as_there_meanwhile(path);
  if (descriptor < 0) fail_to_write(path, errno);
  ::close(descriptor);
}

// For file systems whose renames always replace (NFS): a file over its own claim. A directory replaces an empty one at
// most.
void rename_to_claimed(const fs::path& from, const fs::path& to) {
  const bool is_file = fs::is_regular_file(from);
  if (is_file) claim(to);
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  const int error = errno;
  if (is_file) ::unlink(to.c_str());
  if (error == EEXIST || error == ENOTEMPTY || error == ENOTDIR) fail_as_there_meanwhile(to);
  fail_to_write(to, error);
}

void rename_to_new(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  if (errno == EEXIST) fail_as_there_meanwhile(to);
  if (errno != EINVAL && errno != ENOSYS) fail_to_write(to, errno);
  rename_to_claimed(from, to);
}

// Where a symbolic link leads to, so that the link itself stays.
fs::path resolve(const fs::path& path) {
  std::error_code error;
  const fs::path followed = follow_link(path);
  const fs::path resolved = fs::weakly_canonical(followed, error);
  return error ? followed : resolved;
}

// Only a regular file is ever replaced: not a device, a pipe, a socket or a directory.
void check_can_be_replaced(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode)) return;
  fail_input("{}: is there and is no regular file, and is not replaced; name another file", path.string());
}

// Errors name the directory whose parents they are.
void make_parents(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory.parent_path(), error);
  if (error) fail_to_write(directory, error.value());
}

enum class Lock : std::uint8_t { taken, held_by_another, not_supported };

Lock try_lock(int descriptor) {
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    return errno == EWOULDBLOCK ? Lock::held_by_another : Lock::not_supported;
  }
  return Lock::taken;
}

// False once another process has removed the entry, which it may until the lock is taken.
bool is_still_at(int descriptor, const fs::path& path) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(descriptor, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

// Opens the directory at `path` and makes it where it is not there. Returns -1 where that fails, with EAGAIN as errno
// where another process took it for a leftover and removed it meanwhile.
int open_new_directory(const fs::path& path) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return -1;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor >= 0) return descriptor;
  const int error = errno;
  ::rmdir(path.c_str());
  errno = error == ENOENT ? EAGAIN : error;
  return -1;
}

// Opens what `make` makes at `temporary`, and takes its lock.
template <typename Make>
int make_locked(const fs::path& temporary, const fs::path& destination, const Make& make) {
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int descriptor = make();
    if (descriptor < 0 && errno != EAGAIN) fail_to_write(destination, errno);
    if (descriptor >= 0) {
      if (try_lock(descriptor) != Lock::held_by_another && is_still_at(descriptor, temporary)) return descriptor;
      ::close(descriptor);
    }
    ::usleep(1000);  // a process that removes leftovers has it for a moment
  }
  fail_input("{}: another process is writing it: it holds {}", destination.string(), temporary.string());
}

// The id in "<name>.tmp-<process id>", or 0.
int process_of(std::string_view name) {
  const std::size_t suffix = name.rfind(kTemporarySuffix);
  if (suffix == std::string_view::npos) return 0;
  const std::string_view digits = name.substr(suffix + kTemporarySuffix.size());
  int process = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), process);
  return error == std::errc() && end == digits.data() + digits.size() && process > 0 ? process : 0;
}

bool is_gone(int process) {
  return ::kill(process, 0) != 0 && errno == ESRCH;
}

void remove_leftover(const fs::path& path, int process) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return;
  struct stat status {};
  const bool can_be_ours = ::fstat(descriptor, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
  const Lock lock = can_be_ours ? try_lock(descriptor) : Lock::held_by_another;
  std::error_code ignored;
  if (lock == Lock::taken || (lock == Lock::not_supported && is_gone(process))) fs::remove_all(path, ignored);
  ::close(descriptor);
}

}  // namespace

AtomicFile::AtomicFile(fs::path path, Existing existing) : path_(std::move(path)), existing_(existing) {
  if (existing_ == Existing::refused) check_is_new(path_);
  check_can_be_replaced(path_);
  path_ = resolve(path_);
  temporary_ = temporary_beside(path_);
  descriptor_ = make_locked(
      temporary_, path_, [&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666); });
  if (::ftruncate(descriptor_, 0) != 0) fail_to_write(path_, errno);
}

AtomicFile::~AtomicFile() {
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_to_write(path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_to_write(path_, errno);
  if (existing_ == Existing::refused) {
    rename_to_new(temporary_, path_);
  } else {
    rename_or_fail(temporary_, path_);
  }
  temporary_.clear();
  flush_directory(path_.has_parent_path() ? path_.parent_path() : ".");
}

AtomicDirectory::AtomicDirectory(const fs::path& destination, Existing existing)
    : destination_(resolve(plain_directory(destination))),
      temporary_(temporary_beside(destination_)),
      existing_(existing) {
  if (existing_ == Existing::refused) check_is_new(plain_directory(destination));
  std::error_code ignored;
  if (fs::exists(destination_, ignored) && !fs::is_directory(destination_, ignored)) {
    fail_input("{}: is there and is no directory; name another one", destination_.string());
  }
  make_parents(destination_);
  remove_leftovers_of(destination_);
  descriptor_ = make_locked(temporary_, destination_, [&] { return open_new_directory(temporary_); });
  for (const auto& entry : fs::directory_iterator(temporary_, ignored)) fs::remove_all(entry.path(), ignored);
}

AtomicDirectory::~AtomicDirectory() {
  ::close(descriptor_);  // first, for it may be the last one that this process may have
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);  // after commit(): the directory that was replaced, or nothing
}

void AtomicDirectory::commit() {
  flush_directory(temporary_);
  std::error_code ignored;
  if (existing_ == Existing::refused) {
    rename_to_new(temporary_, destination_);
  } else if (fs::exists(fs::symlink_status(destination_, ignored))) {
    exchange(temporary_, destination_);
  } else {
    rename_or_fail(temporary_, destination_);
  }
  flush_directory(destination_.parent_path());
}

void check_is_new(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path, ignored))) return;
  fail_input("{}: is already there and is not replaced; name a new file or directory", path.string());
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void remove_leftovers(const fs::path& directory, const std::function<bool(std::string_view)>& is_ours) {
  std::error_code ignored;
  std::vector<std::pair<fs::path, int>> leftovers;
  for (fs::directory_iterator entry(directory, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    const int process = process_of(name);
    if (process > 0 && is_ours(std::string_view(name).substr(0, name.rfind(kTemporarySuffix)))) {
      leftovers.emplace_back(entry->path(), process);
    }
  }
  for (const auto& [path, process] : leftovers) remove_leftover(path, process);
}

void remove_leftovers_of(const fs::path& destination) {
  const fs::path plain = resolve(plain_directory(destination));
  remove_leftovers(plain.parent_path(), [&](std::string_view name) { return name == plain.filename().string(); });
}

}  // namespace qshard
