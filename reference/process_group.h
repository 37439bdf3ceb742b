#pragma once

#include "core/launch/rank_link.h"

namespace qshard::reference {

/// Which ranks this process holds, and how it reaches the others. All processes hold equally many: process p of the
/// link has ranks p * local_ranks up to (p + 1) * local_ranks.
struct ProcessGroup {
  std::size_t local_ranks = 1;
  RankLink* link = nullptr;  // nullptr: this process holds all ranks

  [[nodiscard]] std::size_t processes() const {
    return link == nullptr ? 1 : static_cast<std::size_t>(link->world_size());
  }
  [[nodiscard]] std::size_t process() const { return link == nullptr ? 0 : static_cast<std::size_t>(link->rank()); }
  [[nodiscard]] std::size_t world_size() const { return local_ranks * processes(); }
  [[nodiscard]] std::size_t first_rank() const { return local_ranks * process(); }
  [[nodiscard]] bool has_first() const { return process() == 0; }
};

/// A group of `world_size` ranks over the processes of `link` (nullptr: all in this one). Throws Error(bad_input) where
/// they cannot be dealt evenly.
ProcessGroup make_process_group(int world_size, RankLink* link);

}  // namespace qshard::reference
