#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "optimized/lora/rank_cuts.h"

namespace qshard::optimized {

/// Columns [first, first + 8 tiles) of one of several products.
struct ColumnGroup {
  int product = 0;
  int first = 0;
};

/// The column groups of products of these ranks, in order.
struct ColumnGroups {
  int tiles = 0;  // of 8 columns, of a group
  int count = 0;
  int block_groups = 0;  // of a thread block
  ColumnGroup groups[kMostColumnGroups];

  /// `widest`: groups of kGroupColumns whatever the ranks, for kernels that have no narrower kind.
  ColumnGroups(std::span<const std::int64_t> ranks, bool widest) {
    std::int64_t largest = 0;
    for (const std::int64_t rank : ranks) largest = std::max(largest, rank);
    tiles = widest ? group_tiles(kGroupColumns) : group_tiles(largest);
    for (std::size_t product = 0; product < ranks.size(); ++product) {
      for (std::int64_t first = 0; first < ranks[product]; first += 8 * tiles) {
        groups[count++] = {static_cast<int>(product), static_cast<int>(first)};
      }
    }
    block_groups = groups_a_block(count);
  }
};

/// The column groups of products or gradients, up to kMostProducts, by their ranks.
template <typename Product>
ColumnGroups column_groups(std::span<const Product> products, bool widest) {
  std::int64_t ranks[kMostProducts] = {};
  for (std::size_t i = 0; i < products.size(); ++i) ranks[i] = products[i].rank;
  return {std::span<const std::int64_t>(ranks, products.size()), widest};
}

}  // namespace qshard::optimized
