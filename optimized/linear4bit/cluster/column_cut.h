#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/tile_shape.h"

namespace qshard::optimized::cluster {

/// How many columns, each a row of the input, a thread block has of a tile, and how many tiles there are: what costs
/// least.
struct ColumnCut {
  int columns = 0;
  int tiles = 0;

  ColumnCut(std::int64_t rows, const TileShape& shape) {
    const std::int64_t most = std::int64_t{shape.column_sharers} * shape.column_counts.back();
    const auto least = static_cast<int>((rows + most - 1) / most);
    for (int count = least; count <= least + 1; ++count) {
      const std::int64_t pieces = std::int64_t{shape.column_sharers} * count;
      const std::int64_t needed = (rows + pieces - 1) / pieces;
      for (const int each : shape.column_counts) {
        if (each < needed) continue;
        if (tiles == 0 || (shape.fixed_cost + each) * count < (shape.fixed_cost + columns) * tiles) {
          columns = each;
          tiles = count;
        }
        break;
      }
    }
  }
};

}  // namespace qshard::optimized::cluster
