#pragma once

#include <cstdint>

// Copies from device to shared memory that go on while the thread computes, on sm_80 and later. Each thread waits for
// its own; a barrier of the block makes them known to the others.
namespace qshard::optimized {

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
