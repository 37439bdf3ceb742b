#include "core/base/file.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

namespace qshard {
namespace {

/// A regular file opened for reading.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail_to_read(path, errno);
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() { ::close(descriptor_); }

  [[nodiscard]] int descriptor() const { return descriptor_; }

  [[nodiscard]] std::size_t size() const {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail_to_read(path_, errno);
    if (S_ISDIR(status.st_mode)) fail_to_read(path_, EISDIR);
    if (!S_ISREG(status.st_mode)) fail_input("{}: cannot read: it is not a regular file", path_.string());
    return static_cast<std::size_t>(status.st_size);
  }

 private:
  const std::filesystem::path& path_;
  int descriptor_;
};

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path) {
  const InputFile file(path);
  const std::size_t size = file.size();
  if (size == 0) return {nullptr, 0};
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (data == MAP_FAILED) fail_to_read(path, errno);
  return {static_cast<const std::byte*>(data), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string read_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string text(file.size(), '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = ::read(file.descriptor(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_to_read(path, errno);
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  text.resize(filled);
  return text;
}

std::filesystem::path follow_link(const std::filesystem::path& path) {
  constexpr int kMostLinks = 40;  // as many as Linux follows
  std::error_code error;
  std::filesystem::path followed = path;
  for (int links = 0; links < kMostLinks; ++links) {
    if (!std::filesystem::is_symlink(followed, error) || std::filesystem::exists(followed, error)) return followed;
    const std::filesystem::path target = std::filesystem::read_symlink(followed, error);
    if (error) fail_to_read(followed, error.value());
    followed = followed.parent_path() / target;
  }
  fail_input("{}: symbolic links lead in a circle; name another place", path.string());
}

void make_directories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(follow_link(path), error);
  if (error) fail_to_write(path, error.value());
}

void fail_to_read(const std::filesystem::path& path, int error) {
  const bool lacks = error == ENOMEM || error == EMFILE || error == ENFILE || error == EAGAIN;
  fail(lacks ? ExitCode::out_of_resources : ExitCode::bad_input, "{}: cannot read: {}", path.string(),
       std::generic_category().message(error));
}

void fail_to_write(const std::filesystem::path& path, int error) {
  const std::string reason = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    fail(ExitCode::out_of_resources, "{}: cannot write: {}; free some space or write elsewhere", path.string(), reason);
  }
  if (error == ENOMEM || error == EMFILE || error == ENFILE) {
    fail(ExitCode::out_of_resources, "{}: cannot write: {}", path.string(), reason);
  }
  fail_input("{}: cannot write: {}", path.string(), reason);
}

}  // namespace qshard
