#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/float_pair_table.cuh"
#include "optimized/linear4bit/stage_counter.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/linear4bit/wide/wide_cut.h"
#include "optimized/linear4bit/work_split.h"

namespace qshard::optimized::wide {

using warpgroup::kMapBytes;
using warpgroup::kMapCopies;
using warpgroup::Place;

/// Arguments of the kernel, but for its tensor maps; out [rows, features].
template <typename T>
struct Task {
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int in_features;
  int out_features;
  int features;
  int rows;
  T* out;
  std::int64_t out_stride;
  float* partials;  // [split.slots(), kCluster, sums of a thread, kMultipliers]
  int* arrivals;    // [split.tiles, kCluster, kMultiplierWarps]: warps that have left partial sums; zeros at first
  WorkSplit split;  // of clusters; tile t: features tile t / column_tiles, columns tile t % column_tiles
  int column_tiles;
  bool aligned_scales;  // forward: the absmax codes of four chunks are one aligned word of one nested block
  bool paired_out;      // two neighbouring elements of out are one aligned word

  /// This thread block's first feature in a tile.
  [[nodiscard]] __device__ __forceinline__ int first_feature(int tile, int rank) const {
    return tile / column_tiles * kClusterFeatures + rank * kTileFeatures;
  }
};

/// Shared memory by address: the table of pairs, stages of the input (a chunk each) and of codes (a step each), each
/// warp's scales, the nested map, and the barriers.
template <int kColumns>
struct SharedMemory {
  static constexpr std::uint32_t kInputBytes = kColumns * kChunk * 2;
  static constexpr int kInputStages = 96 * 1024 / kInputBytes;
  static constexpr std::uint32_t kCodeBytes = kTileFeatures * kStep / 2;
  static constexpr int kCodeStages = 6;
  static constexpr std::uint32_t kScaleBytes = 1024;  // of a warp
  static constexpr std::uint32_t kBytes = FloatPairTable::kBytes + kInputStages * kInputBytes +
                                          kCodeStages * kCodeBytes + kMultiplierWarps * kScaleBytes + kMapBytes +
                                          16 * (kInputStages + kCodeStages);

  unsigned char* table;

  __device__ __forceinline__ std::uint32_t input(int stage) const {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(table)) + FloatPairTable::kBytes + stage * kInputBytes;
  }
  __device__ __forceinline__ std::uint32_t codes(int stage) const { return input(kInputStages) + stage * kCodeBytes; }
  __device__ __forceinline__ std::uint32_t scales(int warp) const { return codes(kCodeStages) + warp * kScaleBytes; }
  __device__ __forceinline__ std::uint32_t map() const { return scales(kMultiplierWarps); }
  __device__ __forceinline__ std::uint32_t input_full(int stage) const { return map() + kMapBytes + 8 * stage; }
  __device__ __forceinline__ std::uint32_t input_empty(int stage) const { return input_full(kInputStages + stage); }
  __device__ __forceinline__ std::uint32_t codes_full(int stage) const { return input_full(2 * kInputStages + stage); }
  __device__ __forceinline__ std::uint32_t codes_empty(int stage) const { return codes_full(kCodeStages + stage); }
};

/// The table's pair times the two scales, rounded: the bits of dequantize().
template <typename T>
__device__ __forceinline__ std::uint32_t scale_pair(float2 pair, float first, float second) {
  return round_pair<T>(multiply_ftz(pair.x, first), multiply_ftz(pair.y, second));
}

}  // namespace qshard::optimized::wide
