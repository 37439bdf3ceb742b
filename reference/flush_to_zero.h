#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace qshard::reference {

/// A subnormal float becomes the zero of its sign, everything else stays: what the GPU does to operands and results of
/// instructions marked .ftz, with which bitsandbytes' kernels are compiled.
inline float flush_to_zero(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits & 0x7F800000U) == 0 ? bits & 0x80000000U : bits);
}

/// The GPU's mul.ftz.f32. It rounds the product to 24 bits as if exponents had no end and flushes what is then below
/// the smallest normal number, 2^-126: products from 2^-126 (1 - 2^-25) on become that number instead of zero (all
/// pairs of bfloat16 compared with an sm_90 GPU). The product of two floats is exact in double. A NaN result is
/// 0x7FFFFFFF there and any NaN here.
inline float multiply_flushed(float a, float b) {
  constexpr double kLeastKept = 0x1.FFFFFFp-127;
  const double exact = static_cast<double>(flush_to_zero(a)) * flush_to_zero(b);
  return static_cast<float>(std::fabs(exact) < kLeastKept ? std::copysign(0.0, exact) : exact);
}

}  // namespace qshard::reference
