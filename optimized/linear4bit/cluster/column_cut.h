#pragma once

#include <cstdint>
#include <span>

namespace qshard::optimized::cluster {

/// How many columns, each a row of the input, a thread block has of a tile, and how many tiles there are: what costs
/// least.
struct ColumnCut {
  int columns = 0;
  int tiles = 0;

  /// counts: of columns that the kernel is compiled for, ascending. sharers: thread blocks that have different columns
  /// of a tile. fixed_cost: what a step takes beside its columns, in columns.
  ColumnCut(std::int64_t rows, std::span<const int> counts, int sharers, int fixed_cost) {
    const std::int64_t most = std::int64_t{sharers} * counts.back();
    const auto least = static_cast<int>((rows + most - 1) / most);
    for (int count = least; count <= least + 1; ++count) {
      const std::int64_t pieces = std::int64_t{sharers} * count;
      const std::int64_t needed = (rows + pieces - 1) / pieces;
      for (const int each : counts) {
        if (each < needed) continue;
        if (tiles == 0 || (fixed_cost + each) * count < (fixed_cost + columns) * tiles) {
          columns = each;
          tiles = count;
        }
        break;
      }
    }
  }
};

}  // namespace qshard::optimized::cluster
