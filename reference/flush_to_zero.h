#pragma once

#include <bit>
#include <cstdint>

namespace qshard::reference {

/// A subnormal float becomes the zero of its sign, everything else stays: what the GPU does to operands and results of
/// instructions marked .ftz, with which bitsandbytes' kernels are compiled.
inline float flush_to_zero(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits & 0x7F800000U) == 0 ? bits & 0x80000000U : bits);
}

/// The GPU's mul.ftz.f32. A NaN result is 0x7FFFFFFF there and any NaN here.
inline float multiply_flushed(float a, float b) {
  return flush_to_zero(flush_to_zero(a) * flush_to_zero(b));
}

}  // namespace qshard::reference
