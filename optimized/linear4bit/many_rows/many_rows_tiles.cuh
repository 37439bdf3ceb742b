#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/stage_counter.cuh"

// How linear4bit_many.cu cuts a product out = in op(W): the forward one, whose output columns are the weight's rows,
// and the gradient, whose output columns are the weight's columns. A thread block makes tiles of 256 rows by 128
// columns of the output, in steps of 64 along the inner dimension, each one stage of shared memory. Two thread blocks,
// a cluster, make neighbouring tiles of the same rows at the same time and load `in` for both. Besides, some warps of
// each thread block dequantize the weight to device memory, just ahead of the copies that read it there.
namespace qshard::optimized {

constexpr int kWarpgroups = 2;                   // that multiply
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kDequantizerWarps = 3;
constexpr int kThreads = kMultipliers + 32 + 32 * kDequantizerWarps;  // and one warp that loads
constexpr int kCluster = 2;
constexpr int kTileRows = 256;
constexpr int kGroupColumns = 64;  // of a warpgroup
constexpr int kTileColumns = kGroupColumns * kWarpgroups;
constexpr int kClusterColumns = kTileColumns * kCluster;
constexpr int kStep = 64;
constexpr int kInstructions = kStep / 16;
constexpr int kRasterRows = 8;  // tiles of rows that are made side by side, so that they share the weight in the cache

/// Arguments of the kernel, but for its tensor maps.
struct ManyRowsTask {
  const std::uint8_t* codes;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int out_features;
  int in_features;
  void* weight;     // room for it, dequantized
  unsigned* taken;  // pieces of the weight that a warp has taken; zero before
  unsigned* done;   // of each box of the weight the pieces that are dequantized; zeros before
  int steps;
  int row_tiles;
  int column_tiles;  // kClusterColumns each

  [[nodiscard]] __host__ __device__ int tiles() const { return row_tiles * column_tiles; }
  [[nodiscard]] __device__ __forceinline__ int clusters() const { return static_cast<int>(gridDim.x) / kCluster; }
};

/// The output's tile of a cluster.
struct ManyRowsPlace {
  int row;
  int column;

  __device__ __forceinline__ ManyRowsPlace(const ManyRowsTask& task, int tile) {
    const int raster = tile / (kRasterRows * task.column_tiles);
    const int first = raster * kRasterRows;
    const int rows = min(kRasterRows, task.row_tiles - first);
    const int rest = tile - first * task.column_tiles;
    row = (first + rest % rows) * kTileRows;
    column = rest / rows * kClusterColumns;
  }
};

/// Shared memory by address: stages of the input and of the weight for it, room for the output, the nested map, the
/// barriers, and which step the loader is at.
struct ManyRowsShared {
  static constexpr int kStages = 4;
  static constexpr std::uint32_t kInputBytes = kTileRows * kStep * 2;
  static constexpr std::uint32_t kHalfInputBytes = kInputBytes / kCluster;  // that each of the cluster loads
  static constexpr std::uint32_t kWeightBytes = kGroupColumns * kStep * 2;  // of a warpgroup
  static constexpr std::uint32_t kStageBytes = kInputBytes + kWarpgroups * kWeightBytes;
  static constexpr int kOutputRows = kTileRows / 2;  // that a warpgroup stores at once
  static constexpr std::uint32_t kOutputBytes = kOutputRows * kGroupColumns * 2;
  static constexpr std::uint32_t kMapBytes = 256 * sizeof(float);
  static constexpr std::uint32_t kBytes =
      kStages * kStageBytes + kWarpgroups * kOutputBytes + kMapBytes + 2 * kStages * 8 + 8;

  std::uint32_t first;  // aligned to 1024 bytes

  __device__ __forceinline__ std::uint32_t input(int stage) const { return first + stage * kInputBytes; }
  __device__ __forceinline__ std::uint32_t weight(int stage, int warpgroup) const {
    return input(kStages) + (stage * kWarpgroups + warpgroup) * kWeightBytes;
  }
  __device__ __forceinline__ std::uint32_t output(int warpgroup) const {
    return weight(kStages, 0) + warpgroup * kOutputBytes;
  }
  __device__ __forceinline__ std::uint32_t map() const { return output(kWarpgroups); }
  __device__ __forceinline__ std::uint32_t full(int stage) const { return map() + kMapBytes + 8 * stage; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
  __device__ __forceinline__ std::uint32_t progress() const { return full(2 * kStages); }
};

using ManyRowsStage = StageCounter<ManyRowsShared::kStages>;

}  // namespace qshard::optimized
