#pragma once

#include "core/tensor/dtype.h"
#include "core/tensor/float16.h"

namespace qshard::reference {

/// The value as `dtype` (f32, f16 or bf16) would hold it: nearest, ties to even.
inline float rounded(float value, DType dtype) {
  if (dtype == DType::bf16) return to_float(from_float<bfloat16>(value));
  if (dtype == DType::f16) return to_float(from_float<float16>(value));
  return value;
}

}  // namespace qshard::reference
