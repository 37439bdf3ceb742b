#pragma once

#include <filesystem>
#include <optional>

namespace qshard {

/// An exclusive lock on a file, against other processes and other FileLocks. It goes with the object, or with the
/// process however that ends; programs that the process starts do not inherit it. The file itself stays.
class FileLock {
 public:
  /// Makes the file where it is not there. Empty while somebody else holds the lock. Throws the errors of fail_to_write
  /// (core/base/file.h), also on a file system without locks.
  static std::optional<FileLock> try_take(const std::filesystem::path& path);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}

  int descriptor_;  // -1 once moved from
};

}  // namespace qshard
