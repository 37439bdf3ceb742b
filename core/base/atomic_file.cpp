#include "core/base/atomic_file.h"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

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

bool is_leftover(std::string_view name) {
  const std::size_t suffix = name.rfind(kTemporarySuffix);
  if (suffix == std::string_view::npos) return false;
  const std::string_view digits = name.substr(suffix + kTemporarySuffix.size());
  int process = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), process);
  return error == std::errc() && end == digits.data() + digits.size() && process > 0 && ::kill(process, 0) != 0 &&
         errno == ESRCH;
}

}  // namespace

AtomicFile::AtomicFile(fs::path path)
    : path_(std::move(path)),
      temporary_(temporary_beside(path_)),
      descriptor_(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) fail_to_write(path_, errno);
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
  rename_or_fail(temporary_, path_);
  temporary_.clear();
  flush_directory(path_.has_parent_path() ? path_.parent_path() : ".");
}

AtomicDirectory::AtomicDirectory(const fs::path& destination)
    : destination_(plain_directory(destination)), temporary_(temporary_beside(destination_)) {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  make_directories(temporary_);
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);  // after commit(): the directory that was replaced, or nothing
}

void AtomicDirectory::commit() {
  flush_directory(temporary_);
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(destination_, ignored))) {
    exchange(temporary_, destination_);
  } else {
    rename_or_fail(temporary_, destination_);
  }
  flush_directory(destination_.parent_path());
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void remove_leftovers(const fs::path& directory) {
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator entry(directory, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    if (is_leftover(entry->path().filename().string())) leftovers.push_back(entry->path());
  }
  for (const fs::path& leftover : leftovers) fs::remove_all(leftover, ignored);
}

}  // namespace qshard
