#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/sixteen_values.h"
#include "optimized/ptx/shared_access.cuh"

namespace qshard::optimized::cluster {

/// What a block's codes stand for, rounded to T: the bits of dequantize().
template <typename T>
[[nodiscard]] __device__ __forceinline__ SixteenValues scaled_codebook(const CodebookValues& codebook, float scale) {
  const float* const value = codebook.value;
  return SixteenValues(
      [&](int code) { return round_pair<T>(multiply_ftz(value[code], scale), multiply_ftz(value[code + 1], scale)); });
}

/// Writes the values of two words of codes, 16 elements, as two units of 16 bytes in shared memory. In the gradient the
/// even features come first.
template <bool kForward>
__device__ __forceinline__ void write_two_units(std::uint32_t unit, std::uint32_t next_unit,
                                                const SixteenValues& values, std::uint32_t first,
                                                std::uint32_t second) {
  uint4 low;
  uint4 high;
  if constexpr (kForward) {
    values.look_up(first, low.x, low.y, low.z, low.w);
    values.look_up(second, high.x, high.y, high.z, high.w);
  } else {
    values.look_up_apart(first, low.x, low.y, high.x, high.y);
    values.look_up_apart(second, low.z, low.w, high.z, high.w);
  }
  store_shared_u32x4(unit, low);
  store_shared_u32x4(next_unit, high);
}

}  // namespace qshard::optimized::cluster
