#pragma once

namespace qshard::optimized {

/// Which of kCount stages of shared memory is next, and the parity of its barriers' phase: step n has stage n % kCount,
/// and the parity changes each time round.
template <int kCount>
struct StageCounter {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage < kCount) return;
    stage = 0;
    parity ^= 1;
  }
};

}  // namespace qshard::optimized
