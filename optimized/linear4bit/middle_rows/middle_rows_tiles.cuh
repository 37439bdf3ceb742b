#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/linear4bit/middle_rows/middle_rows_cut.h"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/stage_counter.cuh"

namespace qshard::optimized::middle_rows {

using cluster::kCluster;
using cluster::kMultipliers;
using cluster::kMultiplierWarps;
using cluster::Segment;
using cluster::Task;
using warpgroup::kMapBytes;

constexpr std::uint32_t kLineBytes = 128;  // of the dequantized weight

/// Shared memory by address: stages of the input and of the weight for it, a step each, each dequantizing warp's stages
/// of codes, the nested map, and the barriers.
template <int kColumns>
struct SharedMemory {
  static constexpr std::uint32_t kInputBytes = kColumns * kStep * 2;
  static constexpr std::uint32_t kWeightBytes = kTileFeatures * kLineBytes;
  static constexpr std::uint32_t kStageBytes = kInputBytes + kWeightBytes;
  static constexpr std::uint32_t kCodeBytes = 32 * kStep / 2;
  static constexpr int kTeams = team_count(kColumns);
  static constexpr int kDequantizerWarps = kTeams * kTeamWarps;
  static constexpr int kThreads = kMultipliers + 32 * kDequantizerWarps;
  static constexpr int kCodeStages = 8 / kTeams;  // of a warp
  static constexpr int kAllCodeStages = kCodeStages * kDequantizerWarps;
  static constexpr std::uint32_t kBarrierBytes = 1024;
  static constexpr std::uint32_t kOtherBytes = kAllCodeStages * kCodeBytes + kMapBytes + kBarrierBytes;
  static constexpr int kStages = (227 * 1024 - kOtherBytes) / kStageBytes;
  static constexpr std::uint32_t kBytes = kStages * kStageBytes + kOtherBytes;
  static_assert(kStages >= 4 && 8 * (2 * kStages + kAllCodeStages) <= kBarrierBytes);

  std::uint32_t first;  // aligned to 1024 bytes

  __device__ __forceinline__ std::uint32_t input(int stage) const { return first + stage * kStageBytes; }
  __device__ __forceinline__ std::uint32_t weight(int stage) const { return input(stage) + kInputBytes; }
  __device__ __forceinline__ std::uint32_t codes(int warp, int stage) const {
    return input(kStages) + (warp * kCodeStages + stage) * kCodeBytes;
  }
  __device__ __forceinline__ std::uint32_t map() const { return codes(kDequantizerWarps, 0); }
  __device__ __forceinline__ std::uint32_t full(int stage) const { return map() + kMapBytes + 8 * stage; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
  __device__ __forceinline__ std::uint32_t codes_full(int warp, int stage) const {
    return empty(kStages + warp * kCodeStages + stage);
  }
};

}  // namespace qshard::optimized::middle_rows
