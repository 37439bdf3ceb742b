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

/// What is to be done with the sums of a segment that a thread block, `rank` of its cluster, multiplies. It takes
/// divisions, which cost nothing where it is made while the last matrix instructions run.
template <typename T>
class SegmentEnd {
 public:
  /// first_column: of the thread block's columns, first_feature: of its 128.
  __device__ __forceinline__ SegmentEnd(const Task<T>& task, const Segment& segment, int first_column,
                                        int first_feature, int rank)
      : task_(task), tile_(segment.tile - task.order.whole), first_column_(first_column), rank_(rank) {
    const int line = static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
    feature_ = first_feature + feature_of_line(line);
    const WorkSplit& split = task.order.rest;
    if (segment.end - segment.begin < split.steps) {
      first_sharer_ = split.worker_of(tile_ * split.steps);
      sharers_ = split.worker_of((tile_ + 1) * split.steps - 1) - first_sharer_ + 1;
    }
    asm volatile("" : "+r"(feature_), "+r"(first_column_), "+r"(first_sharer_), "+r"(sharers_));  // made now
  }

  /// Writes the sums, or shares them: of the clusters that share a tile one writes the sums of all. Each warp does so
  /// by itself for its features.
  template <int kSums>
  __device__ __forceinline__ void finish(float (&sums)[kSums]) const {
    if (sharers_ == 1 || completes(sums)) store_sums(task_, sums, first_column_, feature_);
  }

 private:
  template <int kSums>
  __device__ __forceinline__ bool completes(float (&sums)[kSums]) const {
    const auto partials = [&](int sharer) {
      const std::int64_t slot = task_.order.rest.slot(first_sharer_ + sharer, tile_);
      return task_.partials + (slot * kCluster + rank_) * kSums * kMultipliers + threadIdx.x;
    };
    const auto arrivals = [&](int sharer) {
      return task_.arrivals + ((first_sharer_ + sharer) * kCluster + rank_) * kMultiplierWarps + threadIdx.x / 32;
    };
    const int self = static_cast<int>(blockIdx.x) / kCluster - first_sharer_;
    return add_up_shared<kMultipliers>(WarpTeam{}, sharers_, self, partials, arrivals, sums);
  }

  const Task<T>& task_;
  int tile_;  // of those that are shared
  int first_column_;
  int rank_;
  int feature_;
  int first_sharer_ = 0;
  int sharers_ = 1;
};

}  // namespace qshard::optimized::cluster
