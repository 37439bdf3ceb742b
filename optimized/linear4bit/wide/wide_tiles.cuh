#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/linear4bit/wide/wide_cut.h"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/stage_counter.cuh"

namespace qshard::optimized::wide {

using cluster::kChunk;
using cluster::kCluster;
using cluster::kMultiplierWarps;
using cluster::Segment;
using cluster::Task;
using warpgroup::kMapBytes;

constexpr int kLines = cluster::kTileFeatures;  // of a chunk
constexpr std::uint32_t kLineBytes = 128;       // of the dequantized weight
constexpr int kInstructions = kChunk / 16;      // of a chunk, for a warpgroup's 64 features

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// This thread block's first feature in a tile.
template <typename T>
__device__ __forceinline__ int first_feature(const Task<T>& task, int tile) {
  return task.first_feature(tile, kTileFeatures) + cluster_rank() * kLines;
}

#endif

/// Shared memory by address: stages of the input and of the dequantized weight for it, a chunk each, stages of codes, a
/// step each, the nested map, and the barriers.
template <int kColumns>
struct SharedMemory {
  static constexpr int kTeams = team_count(kColumns);
  static constexpr std::uint32_t kInputBytes = kColumns * kChunk * 2;
  static constexpr std::uint32_t kWeightBytes = kLines * kLineBytes;
  static constexpr std::uint32_t kStageBytes = kInputBytes + kWeightBytes;
  static constexpr std::uint32_t kCodeBytes = kLines * kStep / 2;
  static constexpr int kCodeStages = 4;
  static constexpr std::uint32_t kBarrierBytes = 512;
  static constexpr std::uint32_t kOtherBytes = kCodeStages * kCodeBytes + kMapBytes + kBarrierBytes;
  static constexpr int kStages = (227 * 1024 - kOtherBytes) / kStageBytes;
  static constexpr std::uint32_t kBytes = kStages * kStageBytes + kOtherBytes;
  static_assert(kStages >= kTeams && 16 * (kStages + kCodeStages) <= kBarrierBytes);

  std::uint32_t first;  // aligned to 1024 bytes

  __device__ __forceinline__ std::uint32_t input(int stage) const { return first + stage * kStageBytes; }
  __device__ __forceinline__ std::uint32_t weight(int stage) const { return input(stage) + kInputBytes; }
  __device__ __forceinline__ std::uint32_t codes(int stage) const { return input(kStages) + stage * kCodeBytes; }
  __device__ __forceinline__ std::uint32_t map() const { return codes(kCodeStages); }
  __device__ __forceinline__ std::uint32_t full(int stage) const { return map() + kMapBytes + 8 * stage; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
  __device__ __forceinline__ std::uint32_t codes_full(int stage) const { return empty(kStages + stage); }
  __device__ __forceinline__ std::uint32_t codes_empty(int stage) const { return codes_full(kCodeStages + stage); }
};

}  // namespace qshard::optimized::wide
