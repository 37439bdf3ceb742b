#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace qshard {

/// A file mapped into memory, read-only; pages are read when they are touched. It must not be shortened by others while
/// it is mapped: reading past its new end would be a bus error.
class MappedFile {
 public:
  /// Throws Error(bad_input) where `path` cannot be read or is not a regular file.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  /// The whole file; the first byte is aligned to a page.
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, std::size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Reads a whole small file. Throws Error(bad_input) where it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// `path`, or where it leads if it is a symbolic link to what is not there yet. Throws Error(bad_input) where links
/// lead in a circle.
std::filesystem::path follow_link(const std::filesystem::path& path);

/// Makes a directory and its parents, where a link leads too; one that exists is left as it is. Errors as those of
/// fail_to_write.
void make_directories(const std::filesystem::path& path);

/// Throw for a system call on `path` that failed with `error` (errno): Error(out_of_resources) where memory or
/// descriptors are used up, or a disk or a limit on a file's size is full, else Error(bad_input).
[[noreturn]] void fail_to_read(const std::filesystem::path& path, int error);
[[noreturn]] void fail_to_write(const std::filesystem::path& path, int error);

}  // namespace qshard
