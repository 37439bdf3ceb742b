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

/// Copies 16 bytes, both addresses aligned to 16; writes zeros, and reads nothing, where not `present`.
__device__ __forceinline__ void copy_async_16(std::uint32_t to, const void* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(present ? 16 : 0) : "memory");
}

/// The same for 4 bytes.
__device__ __forceinline__ void copy_async_4(std::uint32_t to, const void* from, bool present) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(present ? 4 : 0) : "memory");
}

/// Closes the group of copies started so far.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most kPending groups are under way.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace qshard::optimized
