#pragma once

#include "optimized/linear4bit/cluster/add_partials.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/signals.cuh"

namespace qshard::optimized::many_rows {

/// Threads that leave sums, and add up all of them, together: a warpgroup, by a named barrier of its own.
struct WarpgroupTeam {
  int barrier;

  [[nodiscard]] __device__ __forceinline__ bool is_first() const { return threadIdx.x % 128 == 0; }
  __device__ __forceinline__ void sync() const { named_barrier_sync<128>(barrier); }

  /// What the first thread says; what it has seen, all have seen then.
  [[nodiscard]] __device__ __forceinline__ bool hears(bool says) const {
    return named_barrier_any<128>(barrier, is_first() && says);
  }
};

/// A team's part of a tile that some share. The sums are added up in pairs of sharers, then in pairs of these pairs,
/// and so on: whichever of two comes first leaves its sums and is done, the other one adds them to its own and goes on.
/// Which sums are added to which depends on the number of sharers alone, and a sum of two has no order. Returns whether
/// `sums` are the tile's, which is so in one sharer.
/// self: of the sharers; partials(sharer): where a thread's sums of it lie, kStride apart; arrivals(sharer), from 1 on:
/// a count of the tile and the team's part, zero before.
template <int kStride, typename Partials, typename Arrivals, int kSums>
__device__ __forceinline__ bool add_up_shared(const WarpgroupTeam& team, int sharers, int self,
                                              const Partials& partials, const Arrivals& arrivals,
                                              float (&sums)[kSums]) {
#pragma unroll 1
  for (int width = 1; width < sharers; width *= 2) {
    const int first = self & -width;  // of those whose sums these are
    const int other = first ^ width;
    if (other >= sharers) continue;
    int* const arrived = arrivals(first | width);
    if (!team.hears(team.is_first() && load_acquire(arrived) == 1)) {
      float* const own = partials(first);
#pragma unroll
      for (int i = 0; i < kSums; ++i) __stcg(own + i * kStride, sums[i]);
      team.sync();
      if (!team.hears(team.is_first() && add_release_acquire(arrived, 1) == 1)) return false;
    }
    cluster::add_partials<kStride>(partials(other), sums);
  }
  return true;
}

}  // namespace qshard::optimized::many_rows
