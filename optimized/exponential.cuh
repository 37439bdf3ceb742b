#pragma once

#include <type_traits>

// exp and the reciprocal, as accurate as the type of the result asks for.
namespace qshard::optimized {

/// e^x. T = float: within two units in the last place. 16-bit T: the hardware's 2^x of the rounded product x log2(e), a
/// relative error of at most (1.5 |x| + 4) 2^-24; results below the least normal float are 0.
template <typename T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return expf(x);
  } else {
    constexpr float kLog2E = 1.4426950408889634F;
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * kLog2E));
    return power;
  }
}

/// The logistic function 1 / (1 + e^-x), with the error of the exponential and, for 16-bit T, 2^-23 more.
template <typename T>
__device__ __forceinline__ float logistic(float x) {
  const float denominator = 1.0F + exponential<T>(-x);
  if constexpr (std::is_same_v<T, float>) {
    return 1.0F / denominator;
  } else {
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(denominator));
    return reciprocal;
  }
}

}  // namespace qshard::optimized
