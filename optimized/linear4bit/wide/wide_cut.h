#pragma once

#include <cstdint>

#include "optimized/host_device.h"

// How wide.cu cuts a product: the forward one, y = x W^T, whose features are the weight's rows, and the gradient,
// dx = dy W, whose features are the weight's columns. A cluster of two thread blocks makes tiles of 256 features by up
// to 256 rows of the input, its columns: each thread block 128 features, each of its two warpgroups 64, each warp 16.
// Along the inner dimension it takes steps of 128, two chunks of 64.
namespace qshard::optimized::wide {

constexpr int kWarpgroups = 2;                   // that multiply
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kThreads = kMultipliers + 128;  // and one warpgroup that loads
constexpr int kCluster = 2;
constexpr int kTileFeatures = 64 * kWarpgroups;  // of a thread block
constexpr int kClusterFeatures = kTileFeatures * kCluster;
constexpr int kChunk = 64;
constexpr int kChunks = 2;  // of a step
constexpr int kStep = kChunk * kChunks;
constexpr int kInstructions = kChunk / 16;  // of a chunk, for a warpgroup's 64 features
constexpr int kMostColumns = 256;
constexpr int kColumnCounts[] = {96, 128, 160, 192, 224, 256};  // of a tile, that the kernel is compiled for

/// A lane has two neighbouring features, an even one and the odd one after it: one as row g of its matrix instructions,
/// g its group (lane / 4), the other one as row g + 8. Forward this is the first of the two, of a warp's 16: in this
/// order the loads of two groups at a time are in different banks. The gradient has the even ones first.
QSHARD_HOST_DEVICE int forward_feature(int group) {
  return 2 * group + group % 2;
}

/// The same of the gradient, of the 32 of two neighbouring warps: a transposing load gives a lane four neighbouring
/// features, of which each of the two warps takes two.
QSHARD_HOST_DEVICE int gradient_feature(int warp, int group) {
  return 4 * group + warp % 2 * 2;
}

/// What a chunk of a tile costs, in columns that the matrix unit multiplies meanwhile: below kLeastColumns dequantizing
/// the weight takes longer than multiplying it, and each tile has some waiting.
QSHARD_HOST_DEVICE int cost_of_columns(int columns) {
  constexpr int kLeastColumns = 128;
  constexpr int kWaiting = 16;
  return larger(columns, kLeastColumns) + kWaiting;
}

/// How many columns, each a row of the input, a tile has, and how many tiles there are: what costs least.
struct ColumnCut {
  int columns = 0;
  int tiles = 0;

  explicit ColumnCut(std::int64_t rows) {
    const auto least = static_cast<int>((rows + kMostColumns - 1) / kMostColumns);
    for (int count = least; count <= least + 1; ++count) {
      const std::int64_t needed = (rows + count - 1) / count;
      for (const int each : kColumnCounts) {
        if (each < needed) continue;
        if (tiles == 0 || cost_of_columns(each) * count < cost()) {
          columns = each;
          tiles = count;
        }
        break;
      }
    }
  }

  /// Of a chunk of all tiles.
  [[nodiscard]] int cost() const { return cost_of_columns(columns) * tiles; }
};

}  // namespace qshard::optimized::wide
