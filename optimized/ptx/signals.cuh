#pragma once

// How thread blocks of one kernel tell each other, through counts in device memory, what is theirs to do and what is
// done.
namespace qshard::optimized {

/// What was written before a count was added to with release, as signal(), count_release() and add_release_acquire() do
/// it, is seen afterwards.
template <typename Count>
__device__ __forceinline__ Count load_acquire(const Count* from) {
  static_assert(sizeof(Count) == 4);
  Count value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// The count, which becomes greater by one, for up to 2^31 - 1 callers. Waited for when it is used: of an addition the
/// compiler (ptxas 13.0) waits for the result at once, to hand it out to the warp's other lanes.
__device__ __forceinline__ unsigned atomic_increment(unsigned* count) {
  unsigned taken;
  asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], 0x7FFFFFFF;" : "=r"(taken) : "l"(count) : "memory");
  return taken;
}

/// Called by a whole warp: adds one to the count when what its lanes have written to device memory is known to copies
/// that are started after wait_for_signals().
__device__ __forceinline__ void signal(unsigned* count) {
  asm volatile("fence.proxy.async.global;" ::: "memory");
  __syncwarp();
  if (threadIdx.x % 32 == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}

/// Waits, in one thread, until there have been so many signals.
__device__ __forceinline__ void wait_for_signals(const unsigned* count, unsigned signals) {
  while (load_acquire(count) < signals) {
  }
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

#endif

__device__ __forceinline__ int load_relaxed(const int* from) {
  int value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

/// Adds one to the count, or sets it to zero where it is `last` or more. What the thread has written, or has seen
/// written, is seen by who finds it counted.
__device__ __forceinline__ void count_release(int* count, int last) {
  asm volatile("red.release.gpu.global.inc.u32 [%0], %1;" ::"l"(count), "r"(last) : "memory");
}

/// The same, but says nothing of what was written.
__device__ __forceinline__ void count_relaxed(int* count, int last) {
  asm volatile("red.relaxed.gpu.global.inc.u32 [%0], %1;" ::"l"(count), "r"(last) : "memory");
}

/// Adds and returns what was there; what the warp wrote before is seen by who finds it added, and the other way round.
__device__ __forceinline__ int add_release_acquire(int* to, int value) {
  int before;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;" : "=r"(before) : "l"(to), "r"(value) : "memory");
  return before;
}

}  // namespace qshard::optimized
