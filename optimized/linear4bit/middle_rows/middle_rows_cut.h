#pragma once

#include "optimized/host_device.h"
#include "optimized/linear4bit/cluster/cluster_cut.h"

// How middle_rows.cu cuts a product. A cluster makes tiles of 128 features by up to 512 rows of the input, its columns:
// each thread block half of the columns, each of its two warpgroups 64 of the features. Along the inner dimension it
// takes steps of 64. The part of the weight for a step is 128 lines of 64 elements, each in one block. Forward: a line
// is a feature, of which 64 of the inner dimension; gradient: one of the inner dimension, of which 64 features, first
// all of the first 64 features, then those of the others. Each thread block dequantizes half of the lines.
namespace qshard::optimized::middle_rows {

constexpr int kStep = cluster::kChunk;
constexpr int kTileFeatures = cluster::kTileFeatures;
constexpr int kLines = kTileFeatures / cluster::kCluster;  // that a thread block dequantizes
constexpr int kTeamWarps = kLines / 32;                    // a thread a line
constexpr int kInstructions = kStep / 16;                  // of a step, for a warpgroup's 64 features
constexpr int kColumnCounts[] = {64, 96, 128, 144, 160, 192, 200, 224, 256};  // that the kernel is compiled for

/// fixed_cost: as measured; with few columns shared memory is what takes longest, which also the weight passes through.
constexpr cluster::TileShape kTileShape{
    .features = kTileFeatures,
    .step = kStep,
    .least_steps = 16,
    .column_sharers = cluster::kCluster,
    .fixed_cost = 80,
    .column_counts = kColumnCounts,
};

/// Teams that take turns at steps: where a thread block's sums leave registers for them, four, and so many threads.
constexpr QSHARD_HOST_DEVICE int team_count(int columns) {
  return columns <= 200 ? 4 : 2;
}

}  // namespace qshard::optimized::middle_rows
