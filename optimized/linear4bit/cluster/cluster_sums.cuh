#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/add_up_shared.cuh"
#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/linear4bit/cluster/matrix_lines.h"

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

/// Finishes a tile that clusters share: one of them writes the sums of all. Each warp does so by itself for its
/// features.
template <typename T, int kSums>
__device__ __forceinline__ void share_sums(const Task<T>& task, float (&sums)[kSums], int tile, int first_column,
                                           int feature, int rank) {
  const WorkSplit& split = task.order.rest;
  const int first = split.worker_of(tile * split.steps);
  const int last = split.worker_of((tile + 1) * split.steps - 1);
  const auto partials = [&](int sharer) {
    const std::int64_t place = static_cast<std::int64_t>(split.slot(first + sharer, tile)) * kCluster + rank;
    return task.partials + place * kSums * kMultipliers + threadIdx.x;
  };
  const auto arrivals = [&](int sharer) {
    return task.arrivals + ((first + sharer) * kCluster + rank) * kMultiplierWarps + threadIdx.x / 32;
  };
  const int self = static_cast<int>(blockIdx.x) / kCluster - first;
  if (add_up_shared<kMultipliers>(WarpTeam{}, last - first + 1, self, partials, arrivals, sums)) {
    store_sums(task, sums, first_column, feature);
  }
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
