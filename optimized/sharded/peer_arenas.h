#pragma once

#include <cstddef>
#include <vector>

namespace qshard::optimized {

/// All ranks' arenas as this rank's device addresses them, index = rank: what lies at an offset of one rank's arena
/// lies there in every rank's.
struct PeerArenas {
  std::vector<std::byte*> bases;
  std::size_t own = 0;
};

}  // namespace qshard::optimized
