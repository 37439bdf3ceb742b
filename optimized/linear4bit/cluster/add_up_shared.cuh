#pragma once

#include <cstdint>

#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/signals.cuh"

namespace qshard::optimized::cluster {

/// Threads that leave sums, and add up all of them, together: a warp.
struct WarpTeam {
  [[nodiscard]] __device__ __forceinline__ bool is_first() const { return threadIdx.x % 32 == 0; }
  __device__ __forceinline__ void sync() const { __syncwarp(); }

  /// What the first thread says.
  [[nodiscard]] __device__ __forceinline__ bool hears(bool says) const { return __shfl_sync(0xFFFFFFFFU, says, 0); }
};

/// The same: a warpgroup, by a named barrier of its own.
struct WarpgroupTeam {
  int barrier;

  [[nodiscard]] __device__ __forceinline__ bool is_first() const { return threadIdx.x % 128 == 0; }
  __device__ __forceinline__ void sync() const { named_barrier_sync<128>(barrier); }
  [[nodiscard]] __device__ __forceinline__ bool hears(bool says) const {
    return named_barrier_any<128>(barrier, is_first() && says);
  }
};

/// A team's part of a tile that some share: each leaves its sums, and the last one to arrive adds up all, in the order
/// of the sharers. Of two the last one needs not leave its own: their sum has no order. Returns whether this was the
/// last one, so that `sums` are the tile's.
/// self: of the sharers; partials(sharer): where a thread's sums of it lie, kStride apart; arrivals: of the tile and
/// the team's part, zero before.
template <int kStride, typename Team, typename Partials, int kSums>
__device__ __forceinline__ bool add_up_shared(const Team& team, int sharers, int self, const Partials& partials,
                                              int* arrivals, float (&sums)[kSums]) {
  const bool are_two = sharers == 2;
  if (are_two && team.hears(load_relaxed(arrivals) == 1)) {
    __threadfence();
  } else {
    float* const own = partials(self);
#pragma unroll
    for (int i = 0; i < kSums; ++i) __stcg(own + i * kStride, sums[i]);
    team.sync();
    if (!team.hears(team.is_first() && add_release_acquire(arrivals, 1) == sharers - 1)) return false;
  }
  int sharer = are_two ? 1 - self : 0;
  if (!are_two) {
    const float* from = partials(sharer++);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = __ldcg(from + i * kStride);
  }
  for (const int end = are_two ? sharer + 1 : sharers; sharer < end; ++sharer) {
    constexpr int kGroup = kSums % 32 == 0 ? 32 : kSums % 16 == 0 ? 16 : 4;  // sums whose loads overlap
    const float* from = partials(sharer);
#pragma unroll
    for (int i = 0; i < kSums; i += kGroup) {
      float values[kGroup];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) values[j] = __ldcg(from + (i + j) * kStride);
#pragma unroll
      for (int j = 0; j < kGroup; ++j) sums[i + j] += values[j];
    }
  }
  return true;
}

}  // namespace qshard::optimized::cluster
