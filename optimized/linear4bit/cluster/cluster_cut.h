#pragma once

#include <cstddef>
#include <cstdint>

#include "optimized/linear4bit/cluster/column_cut.h"
#include "optimized/linear4bit/cluster/tile_order.h"
#include "optimized/linear4bit/cluster/tile_shape.h"
#include "optimized/linear4bit/linear4bit_problem.h"

// What `middle_rows` and `wide` have in common: clusters of two thread blocks make tiles of the product, features by
// rows of the input, its columns. Forward, y = x W^T, features are the weight's rows; gradient, dx = dy W, its columns.
namespace qshard::optimized::cluster {

constexpr int kCluster = 2;
constexpr int kWarpgroups = 2;                   // that multiply
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kTileFeatures = 64 * kWarpgroups;  // that a thread block multiplies
constexpr int kChunk = 64;                       // of the inner dimension, which lies in one block of the weight

/// How the work is cut, and what its partial sums need.
struct ClusterCut {
  ColumnCut columns;
  int tiles;
  TileOrder order;
  std::size_t workspace_bytes;  // of sums of shared tiles

  ClusterCut(const Linear4bitProblem& problem, const TileShape& shape);
};

/// A Hopper GPU, f16 or bf16, whole blocks of 64 or more, sizes and numbers of steps below 2^30.
bool supports(const Linear4bitProblem& problem, const TileShape& shape);

}  // namespace qshard::optimized::cluster
