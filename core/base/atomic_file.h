#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

namespace qshard {

/// What becomes of a file or directory that is at the destination, at first or by the time of commit().
enum class Existing : std::uint8_t {
  replaced,
  refused,  // Error(bad_input), from the constructor or from commit(): of two processes, one writes the destination
};

/// A file written beside its destination, as "<path>.tmp-<process id>", that takes the destination's place in one
/// rename: readers, and whoever looks after a crash, see the old file or the new one, never a part of it. The process
/// holds a lock on what it writes, which tells it from what a killed process left. A symbolic link stays, and the file
/// that it leads to is replaced. Errors: those of fail_to_write (core/base/file.h), and Error(bad_input) for a
/// destination that is there and no regular file (a device, a pipe, a directory).
class AtomicFile {
 public:
  /// Makes the temporary file.
  explicit AtomicFile(std::filesystem::path path, Existing existing = Existing::replaced);
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
  std::filesystem::path temporary_;  // empty once committed; locked through descriptor_
  Existing existing_;
  int descriptor_ = -1;
};

/// The same for a directory: fill path(), then commit(). A directory that is already at the destination is exchanged in
/// one step and then removed (in two steps, with a moment in which neither is there, on file systems that cannot).
class AtomicDirectory {
 public:
  /// Makes the temporary directory, empty, and the destination's parents.
  explicit AtomicDirectory(const std::filesystem::path& destination, Existing existing = Existing::replaced);
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
  Existing existing_;
  int descriptor_ = -1;  // holds the lock on it
};

/// Throws Error(bad_input) where anything is at `path`, a symbolic link included.
void check_is_new(const std::filesystem::path& path);

/// Writes a whole small file through AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Removes from `directory` what AtomicFile and AtomicDirectory left there when their process was killed: files and
/// directories named "<name>.tmp-<process id>" that nobody holds the lock of. `is_ours` is asked about each <name>:
/// only what the program itself makes may go. Entries that cannot be removed stay.
void remove_leftovers(const std::filesystem::path& directory,
                      const std::function<bool(std::string_view name)>& is_ours);

/// The same for the one destination.
void remove_leftovers_of(const std::filesystem::path& destination);

}  // namespace qshard
