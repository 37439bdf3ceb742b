#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"

namespace qshard::optimized::warpgroup {

/// Stores a value of the nested map kMapCopies times.
__device__ __forceinline__ void store_map_value(std::uint32_t map, std::uint32_t at, float value) {
#pragma unroll
  for (int i = 0; i < kMapCopies; i += 4) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %1, %1, %1};" ::"r"(map + 4 * (at * kMapCopies + i)), "f"(value)
                 : "memory");
  }
}

/// Fills the nested map in shared memory, at the address `map`; by all threads that call it, of which 0 to 255 must be
/// some.
__device__ __forceinline__ void fill_map(const BlockScales& scales, std::uint32_t map) {
  if (scales.nested() && threadIdx.x < 256) store_map_value(map, threadIdx.x, scales.nested_map[threadIdx.x]);
}

}  // namespace qshard::optimized::warpgroup
