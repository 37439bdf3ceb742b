#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/linear4bit/work_split.h"
#include "optimized/stage_counter.cuh"

// How warpgroup.cu cuts its work. A thread block multiplies tiles of 192 weight rows; along a row it takes
// steps of 128 elements, each one stage of shared memory: the codes and the part of x for them. A step is two chunks of
// 64 elements, which lie in one block and get one scale. The steps of all tiles are dealt out evenly (WorkSplit).
namespace qshard::optimized::warpgroup {

constexpr int kWarpgroups = 3;                   // that multiply: three leave each the registers for 64 rows of x
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kThreads = kMultipliers + 128;  // and one warpgroup that loads
constexpr int kTileRows = 64 * kWarpgroups;
constexpr int kChunk = 64;
constexpr int kChunks = 2;  // of a step
constexpr int kStep = kChunk * kChunks;
constexpr int kInstructions = kChunk / 16;  // of a chunk, for a warpgroup's 64 rows
constexpr int kSpanSteps = 8;               // that one load of scales is for: two steps a lane of a quad
constexpr int kMapCopies = 8;               // of the nested map, so that lanes seldom wait for each other's bank
constexpr std::uint32_t kMapBytes = 256 * kMapCopies * sizeof(float);

/// Arguments of the kernel; y [rows, out_features].
template <typename T>
struct Task {
  int first_block;  // of the launch's thread blocks
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int in_features;
  int out_features;
  const T* packed_x;  // pack_kernel()
  int rows;
  T* y;
  std::int64_t y_stride;
  float* partials;  // [split.slots(), sums of a thread, kMultipliers]
  int* arrivals;    // [split.tiles, kMultiplierWarps]: warps that have left partial sums; zeros at first
  WorkSplit split;  // its workers are thread blocks
  int ahead;        // absmax codes that are read ahead in one aligned load, of one nested block: 4, 2 (a step's), or 0

  [[nodiscard]] __device__ __forceinline__ int worker() const { return static_cast<int>(blockIdx.x) - first_block; }
};

/// Shared memory by address: the table of pairs, the stages (codes, then x), each warp's scales, the nested map, and
/// the barriers. kColumnTiles: of 8 rows of x.
template <int kColumnTiles>
struct SharedMemory {
  static constexpr std::uint32_t kCodeBytes = kTileRows * kStep / 2;
  static constexpr std::uint32_t kInstructionBytes = kColumnTiles * 8 * 32;  // of x
  static constexpr std::uint32_t kChunkBytes = kInstructions * kInstructionBytes;
  static constexpr std::uint32_t kStageBytes = kCodeBytes + kChunks * kChunkBytes;
  static constexpr int kStages = kColumnTiles == 8 ? 5 : 6;
  static constexpr std::uint32_t kScaleBytes = kSpanSteps * 8 * sizeof(float4);  // of a warp
  static constexpr std::uint32_t kBytes =
      PairTable::kBytes + kStages * kStageBytes + kMultiplierWarps * kScaleBytes + kMapBytes + 16 * kStages;

  unsigned char* table;

  __device__ __forceinline__ std::uint32_t stage(int i) const {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(table)) + PairTable::kBytes + i * kStageBytes;
  }
  __device__ __forceinline__ std::uint32_t scales(int warp) const { return stage(kStages) + warp * kScaleBytes; }
  __device__ __forceinline__ std::uint32_t map() const { return scales(kMultiplierWarps); }
  __device__ __forceinline__ std::uint32_t full(int i) const { return map() + kMapBytes + 8 * i; }
  __device__ __forceinline__ std::uint32_t empty(int i) const { return full(kStages + i); }
};

/// A step of a tile.
struct Place {
  int tile;
  int step;

  __device__ __forceinline__ Place(const WorkSplit& split, int at) : tile(at / split.steps), step(at % split.steps) {}

  __device__ __forceinline__ void advance(const WorkSplit& split) {
    if (++step < split.steps) return;
    step = 0;
    ++tile;
  }
};

}  // namespace qshard::optimized::warpgroup
