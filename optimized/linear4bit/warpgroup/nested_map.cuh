#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"

namespace qshard::optimized::warpgroup {

/// Fills the nested map in shared memory, at the address `map`, each value kMapCopies times; by all threads that call
/// it, of which 0 to 255 must be some.
__device__ __forceinline__ void fill_map(const BlockScales& scales, std::uint32_t map) {
  if (!scales.nested() || threadIdx.x >= 256) return;
  const float value = scales.nested_map[threadIdx.x];
#pragma unroll
  for (int i = 0; i < kMapCopies; i += 4) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %1, %1, %1};" ::"r"(map + 4 * (threadIdx.x * kMapCopies + i)), "f"(value)
                 : "memory");
  }
}

}  // namespace qshard::optimized::warpgroup
