#pragma once

#include "optimized/linear4bit/cluster/cluster_cut.h"
#include "optimized/linear4bit/cluster/matrix_lines.h"

// How wide.cu cuts a product. A cluster makes tiles of 256 features by up to 288 rows of the input, its columns: each
// thread block 128 features, each of its two warpgroups that multiply 64. Along the inner dimension a step is 128, two
// chunks of 64. A chunk of a thread block's part of the weight is 128 lines of 64 elements, each in one block. Forward:
// a line is a feature, of which 64 of the inner dimension; gradient: one of the inner dimension, of which 64 features,
// first all of the first 64 features, then those of the others.
namespace qshard::optimized::wide {

constexpr int kChunks = 2;  // of a step
constexpr int kStep = cluster::kChunk * kChunks;
constexpr int kTileFeatures = cluster::kTileFeatures * cluster::kCluster;
constexpr int kTeamWarps = cluster::kTileFeatures / 32;                   // a thread a line
constexpr int kColumnCounts[] = {96, 128, 160, 192, 224, 256, 272, 288};  // that the kernel is compiled for

/// fixed_cost: from measured times of tiles of 96 and of 256 columns.
constexpr cluster::TileShape kTileShape{
    .features = kTileFeatures,
    .step = kStep,
    .least_steps = 8,
    .column_sharers = 1,
    .fixed_cost = 175,
    .column_counts = kColumnCounts,
};

/// Teams that dequantize, in turns. Of 224 columns one is as fast as two, and faster where tiles are few; more than 256
/// leave registers for one.
constexpr int team_count(int columns) {
  return columns == 224 || columns > 256 ? 1 : 2;
}

/// Matrix instructions beside each other that the columns of a tile take: for one of more than 128 the compiler finds
/// too few of the registers that the kernel starts with, which five warpgroups share.
constexpr int part_count(int columns) {
  return columns <= 128 ? 1 : 2;
}

/// Whether warps load the first operands of two such instructions, which would read them twice from shared memory.
/// Measured on an H200: of 224 columns that is no faster, and of 256 and 288 their sums leave too few registers for it.
constexpr bool loads_operands(int columns) {
  return columns == 160 || columns == 192 || columns == 272;
}

/// The line that a thread of a team, `thread` of 128, dequantizes: of eight neighbouring threads neither codes nor
/// lines are in the same banks of shared memory. In the gradient a warp has both lines of 16 of the inner dimension,
/// whose scales are beside each other.
QSHARD_HOST_DEVICE int line_of_thread(bool forward, int thread) {
  if (forward) return cluster::forward_line(thread);
  const int inner = thread / 32 * 16 + thread / 16 % 2 * 8 + thread % 8;
  return thread / 8 % 2 * cluster::kChunk + inner;
}

}  // namespace qshard::optimized::wide
