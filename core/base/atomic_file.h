#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace qshard {

/// A file written beside its destination, as "<path>.tmp-<process id>", that takes the destination's place in one
/// rename: readers, and whoever looks after a crash, see the old file or the new one, never a part of it.
/// Errors: those of fail_to_write (core/base/file.h).
class AtomicFile {
 public:
  /// Makes the temporary file.
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  /// Removes the temporary file unless commit() was called.
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);

  /// Flushes to the disk, renames, and flushes the directory. At most once.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty once committed
  int descriptor_ = -1;
};

/// The same for a directory: fill path(), then commit(). A directory that is already at the destination is exchanged in
/// one step and then removed (in two steps, with a moment in which neither is there, on file systems that cannot).
class AtomicDirectory {
 public:
  /// Makes the temporary directory, empty, and the destination's parents.
  explicit AtomicDirectory(const std::filesystem::path& destination);
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  /// Removes the temporary directory unless commit() was called.
  ~AtomicDirectory();

  [[nodiscard]] const std::filesystem::path& path() const { return temporary_; }

  /// Files in it must have been flushed by those who wrote them, as AtomicFile does. At most once.
  void commit();

 private:
  std::filesystem::path destination_;
  std::filesystem::path temporary_;
};

/// Writes a whole small file through AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Removes from `directory` what AtomicFile and AtomicDirectory left there in processes of this machine that were
/// killed: entries named "*.tmp-<process id>" whose process is gone. Entries that cannot be removed stay.
void remove_leftovers(const std::filesystem::path& directory);

}  // namespace qshard
