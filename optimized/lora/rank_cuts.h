#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

// How the work of the adapter's kernels is cut: by the shape alone, so that the bits of a result do not depend on the
// device. Tuned for the 132 multiprocessors of an H100 with 2048 tokens, ranks of 64 and 1024 to 28672 features.
namespace qshard::optimized {

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// Ranks are cut into column groups of 8 times so many columns, one to a warp: the least of 2, 4 and 8 that holds
/// the rank, or 8.
constexpr int group_tiles(std::int64_t largest_rank) {
  return largest_rank <= 16 ? 2 : largest_rank <= 32 ? 4 : 8;
}

inline constexpr std::int64_t kGroupColumns = 64;  // the most columns of a group
inline constexpr int kMostProducts = 3;            // of one launch: the projections that share an input
inline constexpr int kMostColumnGroups = 12;       // of so many projections of rank 256
inline constexpr int kMostBlockGroups = 3;         // of a thread block

/// Column groups of projections of these ranks.
constexpr int count_groups(std::span<const std::int64_t> ranks) {
  std::int64_t groups = 0;
  for (const std::int64_t rank : ranks) groups += divide_up(rank, kGroupColumns);
  return static_cast<int>(groups);
}

/// Column groups of a thread block, so that blocks are equal: a block's share of `groups` at most kMostBlockGroups.
constexpr int groups_a_block(int groups) {
  return static_cast<int>(divide_up(groups, divide_up(groups, kMostBlockGroups)));
}

/// A sum over `steps` is cut into `slices` runs of as many steps, the last one of fewer.
struct SumCut {
  int steps_a_slice = 1;
  int slices = 1;
};

/// Thread blocks that run at once.
constexpr std::int64_t resident_blocks(int groups) {
  return groups_a_block(groups) == kMostBlockGroups ? 132 : 264;
}

/// The most slices of a sum of `steps` steps, each of at least `least`, by `tiles` tiles.
constexpr std::int64_t most_slices(std::int64_t steps, std::int64_t least, std::int64_t tiles, int groups) {
  return std::clamp<std::int64_t>(resident_blocks(groups) / tiles, 1, std::max<std::int64_t>(1, steps / least));
}

constexpr SumCut cut_sum(std::int64_t steps, std::int64_t slices) {
  const std::int64_t steps_a_slice = divide_up(steps, slices);
  return {static_cast<int>(steps_a_slice), static_cast<int>(divide_up(steps, steps_a_slice))};
}

inline constexpr int kProductTokens = 128;  // of a tile of rank_product
inline constexpr int kProductDepth = 64;    // features of a step
inline constexpr int kProductLeast = 4;     // steps of a slice

/// [tokens, ranks] = [tokens, features] [features, ranks], in column groups.
constexpr SumCut cut_product(std::int64_t tokens, std::int64_t features, int groups) {
  const std::int64_t tiles = divide_up(tokens, kProductTokens) * divide_up(groups, groups_a_block(groups));
  const std::int64_t steps = divide_up(features, kProductDepth);
  return cut_sum(steps, most_slices(steps, kProductLeast, tiles, groups));
}

/// Rows of partial sums of that product, for up to `tokens` tokens.
constexpr std::int64_t product_partial_rows(std::int64_t tokens, std::int64_t features, int groups) {
  const std::int64_t slices = most_slices(divide_up(features, kProductDepth), kProductLeast, 1, groups);
  return std::max(tokens, std::min(tokens * slices, resident_blocks(groups) * kProductTokens));
}

inline constexpr int kGradientFeatures = 128;  // of a tile of rank_gradient
inline constexpr int kGradientTokens = 64;     // of a step
inline constexpr int kGradientLeast = 4;       // steps of a slice

/// [features, ranks] = [tokens, features]^T [tokens, ranks], in column groups.
constexpr SumCut cut_gradient(std::int64_t tokens, std::int64_t features, int groups) {
  const std::int64_t tiles = divide_up(features, kGradientFeatures) * divide_up(groups, groups_a_block(groups));
  const std::int64_t steps = divide_up(tokens, kGradientTokens);
  return cut_sum(steps, most_slices(steps, kGradientLeast, tiles, groups));
}

/// The most slices of that product for up to `tokens` tokens.
constexpr std::int64_t gradient_slices(std::int64_t tokens, std::int64_t features, int groups) {
  const std::int64_t tiles = divide_up(features, kGradientFeatures) * divide_up(groups, groups_a_block(groups));
  return most_slices(divide_up(tokens, kGradientTokens), kGradientLeast, tiles, groups);
}

}  // namespace qshard::optimized
