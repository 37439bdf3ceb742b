#pragma once

#include <span>

namespace qshard::optimized::cluster {

/// How a kernel cuts products into tiles.
struct TileShape {
  int features;
  int step;            // along the inner dimension
  int least_steps;     // of a cluster: with fewer the sums of shared tiles take longer than what is saved
  int column_sharers;  // thread blocks that have different columns of a tile
  int fixed_cost;      // what a step takes beside its columns, in columns
  std::span<const int> column_counts;  // that the kernel is compiled for, ascending
};

}  // namespace qshard::optimized::cluster
