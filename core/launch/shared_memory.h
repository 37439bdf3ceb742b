#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/launch/rank_link.h"

namespace qshard {

/// Memory of a host that its ranks share: one part a rank, of the same size, zero at first, that every rank can read
/// and write. It has no name in any file system and is gone with the last rank that maps it, also after SIGKILL.
class SharedMemory {
 public:
  /// Collective. Throws Error(bad_input), naming both ranks, where a rank is on another host; Error(out_of_resources)
  /// where the host has too little memory for all of its ranks' parts.
  SharedMemory(std::int64_t bytes, RankLink& link);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  /// What rank `rank` brought along, as this process addresses it; page-aligned.
  [[nodiscard]] std::span<std::byte> part(std::size_t rank) const { return parts_[rank]; }
  [[nodiscard]] std::size_t ranks() const { return parts_.size(); }

 private:
  std::vector<std::span<std::byte>> parts_;
};

}  // namespace qshard
