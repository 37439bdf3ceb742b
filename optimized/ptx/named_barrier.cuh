#pragma once

namespace qshard::optimized {

/// Waits until kThreads threads of the thread block, whole warps, are here; __syncthreads() is barrier 0.
template <int kBarrier, int kThreads>
__device__ __forceinline__ void named_barrier_sync() {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

/// The same for a barrier that is known when the kernel runs.
template <int kThreads>
__device__ __forceinline__ void named_barrier_sync(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}

/// The same, and returns whether any of the threads says so.
template <int kThreads>
__device__ __forceinline__ bool named_barrier_any(int barrier, bool says) {
  int any;
  asm volatile(
      "{.reg .pred says, any; setp.ne.s32 says, %3, 0; bar.red.or.pred any, %1, %2, says; selp.s32 %0, 1, 0, any;}"
      : "=r"(any)
      : "r"(barrier), "n"(kThreads), "r"(says ? 1 : 0)
      : "memory");
  return any != 0;
}

/// As named_barrier_sync() where the number of threads is known when the kernel runs.
template <int kBarrier>
__device__ __forceinline__ void named_barrier_sync_some(int threads) {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "r"(threads) : "memory");
}

/// Counts as one of `threads` threads that named_barrier_sync_some() waits for, and goes on.
template <int kBarrier>
__device__ __forceinline__ void named_barrier_arrive(int threads) {
  asm volatile("bar.arrive %0, %1;" ::"n"(kBarrier), "r"(threads) : "memory");
}

}  // namespace qshard::optimized
