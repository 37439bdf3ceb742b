#pragma once

#include <cstdint>

// Copies from device to shared memory that go on while the thread computes and pass by no register. A thread's copies
// form groups, which end in the order in which they were committed. Each thread waits for its own; a barrier of the
// block makes them known to the others.
namespace qshard::optimized {

/// Copies kBytes (4, 8 or 16, which both addresses are multiples of), or writes zeros and reads nothing.
template <int kBytes>
__device__ __forceinline__ void cp_async(std::uint32_t shared, const void* from, bool present) {
  const int bytes = present ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
}

__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Until at most kPending of the thread's latest groups are under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace qshard::optimized
