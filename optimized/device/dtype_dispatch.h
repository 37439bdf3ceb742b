#pragma once

#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// run(std::type_identity<T>) for the device type T of a dtype that has been checked to be bf16 or f16.
template <typename Run>
void dispatch_16bit(DType dtype, const Run& run) {
  if (dtype == DType::bf16) {
    run(std::type_identity<__nv_bfloat16>{});
  } else {
    run(std::type_identity<__half>{});
  }
}

/// The same for a dtype that has been checked to be f32, bf16 or f16.
template <typename Run>
void dispatch_floating(DType dtype, const Run& run) {
  if (dtype == DType::f32) {
    run(std::type_identity<float>{});
  } else {
    dispatch_16bit(dtype, run);
  }
}

}  // namespace qshard::optimized
