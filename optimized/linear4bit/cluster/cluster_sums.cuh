#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/warpgroup/shared_sums.cuh"

namespace qshard::optimized::cluster {

/// Writes a lane's sums to `out`; feature: what it has as row g of its instructions, an even one; row g + 8 is the one
/// after it.
template <typename T, int kSums>
__device__ __forceinline__ void store_sums(const Task<T>& task, const float (&sums)[kSums], int first_column,
                                           int feature) {
  const int column = first_column + 2 * (static_cast<int>(threadIdx.x) % 4);
  const bool both = feature + 1 < task.features;
#pragma unroll
  for (int i = 0; i < kSums; i += 4) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int at = column + i / 4 * 8 + j;
      if (at >= task.rows || feature >= task.features) continue;
      const std::uint32_t pair = round_pair<T>(sums[i + j], sums[i + 2 + j]);
      auto* const to = reinterpret_cast<std::uint16_t*>(task.out + at * task.out_stride + feature);
      if (both && task.paired_out) {
        *reinterpret_cast<std::uint32_t*>(to) = pair;
      } else {
        to[0] = static_cast<std::uint16_t>(pair);
        if (both) to[1] = static_cast<std::uint16_t>(pair >> 16);
      }
    }
  }
}

/// Finishes a tile that clusters share: each thread block leaves its sums, the last one adds up all, in the clusters'
/// order. Each warp does so by itself for its features. Of two sharers the last one needs not leave its own: their sum
/// has no order.
template <typename T, int kSums>
__device__ __forceinline__ void share_sums(const Task<T>& task, float (&sums)[kSums], int tile, int first_column,
                                           int feature, int rank) {
  const WorkSplit& split = task.order.rest;
  const int self = static_cast<int>(blockIdx.x) / kCluster;
  const int first = split.worker_of(tile * split.steps);
  const int last = split.worker_of((tile + 1) * split.steps - 1);
  const bool are_two = last - first == 1;
  const auto partials = [&](int worker) {
    const std::int64_t place = static_cast<std::int64_t>(split.slot(worker, tile)) * kCluster + rank;
    return task.partials + place * kSums * kMultipliers + threadIdx.x;
  };
  int* arrivals = task.arrivals + (tile * kCluster + rank) * kMultiplierWarps + threadIdx.x / 32;
  const bool is_last = are_two && __shfl_sync(0xFFFFFFFFU, warpgroup::load_relaxed(arrivals), 0) == 1;
  if (!is_last) {
    float* own = partials(self);
#pragma unroll
    for (int i = 0; i < kSums; ++i) __stcg(own + i * kMultipliers, sums[i]);
    __syncwarp();
    int arrived = 0;
    if (threadIdx.x % 32 == 0) arrived = warpgroup::add_release_acquire(arrivals, 1);
    if (__shfl_sync(0xFFFFFFFFU, arrived, 0) != last - first) return;
  } else {
    __threadfence();
  }
  int worker = are_two ? first + last - self : first;
  if (!are_two) {
    const float* from = partials(worker++);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = __ldcg(from + i * kMultipliers);
  }
  for (const int end = are_two ? worker : last; worker <= end; ++worker) {
    constexpr int kGroup = kSums % 32 == 0 ? 32 : kSums % 16 == 0 ? 16 : 4;  // sums whose loads overlap
    const float* from = partials(worker);
#pragma unroll
    for (int i = 0; i < kSums; i += kGroup) {
      float values[kGroup];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) values[j] = __ldcg(from + (i + j) * kMultipliers);
#pragma unroll
      for (int j = 0; j < kGroup; ++j) sums[i + j] += values[j];
    }
  }
  store_sums(task, sums, first_column, feature);
}

/// Writes the sums of a segment that the thread block, `rank` of its cluster, has multiplied, or shares them.
/// first_feature: of the thread block's 128, first_column: of its columns.
template <typename T, int kSums>
__device__ __forceinline__ void finish_segment(const Task<T>& task, float (&sums)[kSums], const Segment& segment,
                                               int first_column, int first_feature, int rank) {
  const int line = static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  const int feature = first_feature + feature_of_line(line);
  if (segment.end - segment.begin == task.order.rest.steps) {
    store_sums(task, sums, first_column, feature);
  } else {
    share_sums(task, sums, segment.tile - task.order.whole, first_column, feature, rank);
  }
}

}  // namespace qshard::optimized::cluster
