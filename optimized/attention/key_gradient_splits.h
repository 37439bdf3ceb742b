#pragma once

#include <cstdint>

#include "optimized/attention/row_tiles.h"

namespace qshard::optimized {

/// Floats that delta takes in the workspace: [heads, tokens], and what aligns the next to 256 bytes.
inline std::int64_t attention_delta_floats(std::int64_t heads, std::int64_t tokens) {
  return (heads * tokens + 63) / 64 * 64;
}

/// About two thread blocks for each of an H100's 132 multiprocessors: with the heaviest first, 16 tiles of keys of 8
/// heads then end within 3 % of each other.
inline constexpr std::int64_t kEnoughKeyGradientBlocks = 256;

/// How many thread blocks share the query heads of one key/value head and tile of keys: the smallest divisor of the
/// group that gives enough thread blocks. Each has its own partial sums in the workspace, which are added in order; so
/// the result depends on the sizes but on no GPU, and all partial sums together stay below
/// 2 kEnoughKeyGradientBlocks tile head_dim floats for dk, and for dv, where groups are powers of two.
inline int key_gradient_splits(std::int64_t heads, std::int64_t kv_heads, std::int64_t tokens, std::int64_t rows,
                               int tile) {
  const std::int64_t group = heads / kv_heads;
  const std::int64_t blocks = kv_heads * tile_slots(static_cast<int>(tokens), static_cast<int>(rows), tile);
  for (std::int64_t splits = 1; splits < group; ++splits) {
    if (group % splits == 0 && blocks * splits >= kEnoughKeyGradientBlocks) return static_cast<int>(splits);
  }
  return static_cast<int>(group);
}

}  // namespace qshard::optimized
