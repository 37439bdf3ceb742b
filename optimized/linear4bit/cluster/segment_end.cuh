#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/add_partials.cuh"
#include "optimized/linear4bit/cluster/cluster_sums.cuh"
#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/cluster/ready_sums.cuh"
#include "optimized/linear4bit/cluster/tile_sharers.h"
#include "optimized/ptx/uniform.cuh"

namespace qshard::optimized::cluster {

/// What is to be done with the sums of a segment that a thread block, `rank` of its cluster, multiplies. It takes
/// divisions, which cost nothing where it is made while the last matrix instructions run.
///
/// Of a tile that clusters share each owner (TileSharers) adds up the sums of all sharers, in the order of the sharers,
/// for a part of the columns, and writes them. Whoever does not own it leaves its sums and goes on. An owner waits for
/// the other sharers, which wait for nothing before their sums are ready. So all clusters of a product must have a
/// place at the same time, which TileOrder sees to, or begin in their order, as they do where others take a part of the
/// GPU: then no more than one tile's owners wait for a cluster that has no place yet. Each warp does all this by itself
/// for its features.
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
    if (segment.end - segment.begin < split.steps) sharers_ = TileSharers(split, tile_);
    asm volatile(""
                 : "+r"(feature_), "+r"(first_column_), "+r"(sharers_.first), "+r"(sharers_.count),
                   "+r"(sharers_.owners));
    sharers_.first = uniform(sharers_.first);
    sharers_.count = uniform(sharers_.count);
    sharers_.owners = uniform(sharers_.owners);
  }

  /// Where this one alone adds up the sums of one other: waits for it, which may be done before the own sums are there.
  __device__ __forceinline__ void wait_ahead() const {
    if (adds_alone()) wait_for(1);
  }

  /// Writes the sums, or this owner's part of those of all sharers, or leaves them. Returns those that it left and that
  /// are to be told of, soon, but after what is more urgent.
  template <int kSums>
  [[nodiscard]] __device__ __forceinline__ ReadySums finish(float (&sums)[kSums]) const {
    if (sharers_.count > 1 && !adds_alone()) {
      leave(sums);
      if (self() >= sharers_.owners) return {sharers_.second()};
      tell_ready(task_, sharers_.second(), rank_);
      wait_for(sharers_.count);
      store_share<kSums>();
      return {};
    }
    if (sharers_.count > 1) add_partials<kMultipliers>(partials<kSums>(1), sums);
    store_sums(task_, sums, first_column_, feature_);
    return {};
  }

 private:
  static constexpr int kGroupSums = 4;  // of a thread, of eight columns
  static constexpr int kGroupsAtOnce = 4;
  static constexpr int kSharersAtOnce = 4;
  static constexpr int kSumsAtOnce = kGroupSums * kGroupsAtOnce;

  [[nodiscard]] __device__ __forceinline__ int self() const {
    return static_cast<int>(blockIdx.x) / kCluster - sharers_.first;
  }
  [[nodiscard]] __device__ __forceinline__ bool adds_alone() const {
    return sharers_.count == 2 && sharers_.owners == 1 && self() == 0;
  }

  /// A thread's sums that a sharer left, kMultipliers apart.
  template <int kSums>
  [[nodiscard]] __device__ __forceinline__ float* partials(int sharer) const {
    const std::int64_t slot = task_.order.rest.slot(sharers_.first + sharer, tile_);
    return task_.partials + (slot * kCluster + rank_) * kSums * kMultipliers + threadIdx.x;
  }

  template <int kSums>
  __device__ __forceinline__ void leave(const float (&sums)[kSums]) const {
    float* const to = partials<kSums>(self());
#pragma unroll
    for (int i = 0; i < kSums; ++i) __stcg(to + i * kMultipliers, sums[i]);
  }

  /// Waits for so many sharers; the last owner that has done so makes the count zero again.
  __device__ __forceinline__ void wait_for(int sharers) const {
    int* const count = ready_count(task_, sharers_.second(), rank_);
    while (uniform(load_acquire(count)) < sharers) {
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) count_relaxed(count, sharers + sharers_.owners - 1);
  }

  /// The groups of columns are dealt to the owners.
  template <int kSums>
  __device__ __forceinline__ void store_share() const {
    constexpr int kGroups = kSums / kGroupSums;
    const int end = kGroups * (self() + 1) / sharers_.owners;
#pragma unroll 1
    for (int group = kGroups * self() / sharers_.owners; group < end; group += kGroupsAtOnce) {
      float totals[kSumsAtOnce] = {};
#pragma unroll 1
      for (int sharer = 0; sharer < sharers_.count; sharer += kSharersAtOnce) {
        add_sharers<kSums>(sharer, group, end, totals);
      }
#pragma unroll
      for (int i = 0; i < kGroupsAtOnce; ++i) {
        const auto& sums = reinterpret_cast<const float(&)[kGroupSums]>(totals[kGroupSums * i]);
        if (group + i < end) store_sums(task_, sums, first_column_ + 8 * (group + i), feature_);
      }
    }
  }

  /// totals += the sums of the next sharers for the next groups, all loads on their way at the same time.
  template <int kSums>
  __device__ __forceinline__ void add_sharers(int first, int group, int end, float (&totals)[kSumsAtOnce]) const {
    float left[kSharersAtOnce][kSumsAtOnce];
#pragma unroll
    for (int j = 0; j < kSharersAtOnce; ++j) {
      const float* const from = partials<kSums>(first + j) + kGroupSums * group * kMultipliers;
#pragma unroll
      for (int i = 0; i < kSumsAtOnce; ++i) {
        const bool is_there = first + j < sharers_.count && group + i / kGroupSums < end;
        left[j][i] = is_there ? __ldcg(from + i * kMultipliers) : 0.0F;
      }
    }
#pragma unroll
    for (int j = 0; j < kSharersAtOnce; ++j) {
#pragma unroll
      for (int i = 0; i < kSumsAtOnce; ++i) totals[i] += left[j][i];
    }
  }

  const Task<T>& task_;
  int tile_;  // of those that are shared
  int first_column_;
  int rank_;
  int feature_;
  TileSharers sharers_;
};

}  // namespace qshard::optimized::cluster
