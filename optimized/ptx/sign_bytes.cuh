#pragma once

#include <cstdint>

namespace qshard::optimized {

/// Byte i of the result is 0xFF where bit 7 of the byte that digit i of `selector` names is set, else 0: digits 8 to 11
/// name the bytes of `low`, 12 to 15 those of `high`.
__device__ __forceinline__ std::uint32_t spread_signs(std::uint32_t low, std::uint32_t high, std::uint32_t selector) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selector));
  return bytes;
}

}  // namespace qshard::optimized
