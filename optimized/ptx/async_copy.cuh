#pragma once

#include <cstdint>

// Copies from device to shared memory that pass by no register. A thread's copies form groups, which end in the order
// in which they were closed.
namespace qshard::optimized {

/// Copies kBytes (8 or 16, which both addresses are multiples of), or writes zeros and reads nothing.
template <int kBytes>
__device__ __forceinline__ void copy_async(std::uint32_t shared, const void* from, bool present) {
  const int bytes = present ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
}

__device__ __forceinline__ void close_copy_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Until at most kOpen of the thread's latest groups have not ended.
template <int kOpen>
__device__ __forceinline__ void wait_for_copy_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}

}  // namespace qshard::optimized
