#pragma once

namespace qshard::optimized {

/// Brings a line of memory to the L2 cache. A kernel may ask for it before it waits for earlier ones, also for what
/// they still write: nothing is read, and later reads see what was written.
__device__ __forceinline__ void prefetch_to_l2(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace qshard::optimized
