#pragma once

#include "optimized/element_vector.cuh"

namespace qshard::optimized {

/// Rotates kCount pairs. Each product and each sum is one rounding to float and one to T, as in the reference: the
/// intrinsics keep the compiler from fusing them.
template <typename T, int kCount>
__device__ __forceinline__ void rotate(const float (&cos)[kCount], const float (&sin)[kCount],
                                       ElementVector<T, kCount>& first, ElementVector<T, kCount>& second) {
  float first_cos[kCount];
  float first_sin[kCount];
  float second_cos[kCount];
  float second_sin[kCount];
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    first_cos[e] = __fmul_rn(to_float(first.element[e]), cos[e]);
    first_sin[e] = __fmul_rn(to_float(first.element[e]), sin[e]);
    second_cos[e] = __fmul_rn(to_float(second.element[e]), cos[e]);
    second_sin[e] = __fmul_rn(to_float(second.element[e]), sin[e]);
  }
  round_to<T>(first_cos);
  round_to<T>(first_sin);
  round_to<T>(second_cos);
  round_to<T>(second_sin);
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    first_cos[e] = __fsub_rn(first_cos[e], second_sin[e]);
    second_cos[e] = __fadd_rn(second_cos[e], first_sin[e]);
  }
  first = rounded<T>(first_cos);
  second = rounded<T>(second_cos);
}

}  // namespace qshard::optimized
