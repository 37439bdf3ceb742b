#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace qshard {

/// What the file system says about which file this is and when it was changed last. Writing to the file changes it, and
/// so does putting another file in its place, whatever times that one claims.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t size = 0;
  std::int64_t modified = 0;  // nanoseconds since 1970
  std::int64_t changed = 0;   // the same, of content or attributes; no program can set it

  bool operator==(const FileStamp&) const = default;

  /// False where `now` is right after a change: a second one in the same tick of the file system's clock would not be
  /// seen.
  [[nodiscard]] bool is_settled(std::chrono::system_clock::time_point now) const;
};

/// Nothing where the file is not there or cannot be looked at.
std::optional<FileStamp> file_stamp(const std::filesystem::path& path);

}  // namespace qshard
