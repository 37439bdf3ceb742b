#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"

namespace qshard::optimized::warpgroup {

/// Fills the nested map in shared memory, at the address `map`, each value kMapCopies times; by threads 0 to kThreads -
/// 1 of those that call it, of whom `thread` is one.
template <int kThreads>
__device__ __forceinline__ void fill_map(const BlockScales& scales, std::uint32_t map, int thread) {
  static_assert(256 % kThreads == 0);
  if (!scales.nested() || thread >= kThreads) return;
#pragma unroll
  for (int at = thread; at < 256; at += kThreads) {
    const float value = scales.nested_map[at];
#pragma unroll
    for (int i = 0; i < kMapCopies; i += 4) {
      asm volatile("st.shared.v4.f32 [%0], {%1, %1, %1, %1};" ::"r"(map + 4 * (at * kMapCopies + i)), "f"(value)
                   : "memory");
    }
  }
}

}  // namespace qshard::optimized::warpgroup
