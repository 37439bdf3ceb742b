#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/many_rows/many_rows_cut.h"
#include "optimized/stage_counter.cuh"

namespace qshard::optimized::many_rows {

/// Arguments of the kernel, but for its tensor maps. The mask belongs to the gradient alone.
struct Task {
  const std::uint8_t* codes;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int out_features;
  int in_features;
  void* weight;     // where it is dequantized to
  unsigned* taken;  // pieces of the weight that a warp has taken; zero before
  unsigned* done;   // of each box of the weight the pieces that are dequantized; zeros before
  float* partials;  // [deal.shared, deal.parts, kCluster, sums of a thread, kMultipliers]
  int* arrivals;    // [deal.shared, deal.parts, kCluster, kWarpgroups]: as add_up_shared() needs them; zeros before
  TileDeal deal;
  int steps;
  int row_tiles;
  int column_tiles;  // kClusterColumns each
  int rows;
  int adapter_steps;  // kStep of the rank each
  float adapter_scale;
  const std::uint8_t* adapter_mask;  // null: everything is kept
  std::int64_t mask_stride;          // bytes from row to row
  bool add_to_out;

  [[nodiscard]] __device__ __forceinline__ int clusters() const { return static_cast<int>(gridDim.x) / kCluster; }
};

/// The adapter's matrices, each of which takes the place of one of the product's in a step: the matrix the weight's.
struct AdapterMaps {
  CUtensorMap matrix;
  CUtensorMap factor;
};

/// Shared memory by address: stages of the input and of the weight for it, the output on its way out, the nested map,
/// barriers, and which step the loader is at.
struct SharedMemory {
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

using Stage = StageCounter<SharedMemory::kStages>;

}  // namespace qshard::optimized::many_rows
