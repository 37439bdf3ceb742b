#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "optimized/device_weight4bit.h"

// Arithmetic whose rounding is part of the contract, spelled out instead of left to compiler flags: bitsandbytes builds
// its kernels with --use_fast_math, which flushes subnormal operands and results to zero (ftz) and divides through the
// hardware's approximate reciprocal.
namespace qshard::optimized {

__device__ __forceinline__ float multiply_ftz(float a, float b) {
  float product;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
  return product;
}

__device__ __forceinline__ float add_ftz(float a, float b) {
  float sum;
  asm("add.rn.ftz.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
  return sum;
}

/// The larger of the two, the number where one is NaN.
__device__ __forceinline__ float max_ftz(float a, float b) {
  float larger;
  asm("max.ftz.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

__device__ __forceinline__ float reciprocal_ftz(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 2^x by the hardware, within 2^-22 of it; 0 for -inf.
__device__ __forceinline__ float exp2_ftz(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ float to_float(float x) {
  return x;
}
__device__ __forceinline__ float to_float(__half x) {
  return __half2float(x);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

/// Rounded to T (nearest, ties to even).
template <typename T>
__device__ __forceinline__ T from_float(float x) {
  return T(x);
}

/// Two floats rounded to T (nearest, ties to even), the first in the lower half.
template <typename T>
__device__ __forceinline__ std::uint32_t round_pair(float first, float second);

template <>
__device__ __forceinline__ std::uint32_t round_pair<__nv_bfloat16>(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

template <>
__device__ __forceinline__ std::uint32_t round_pair<__half>(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

/// The absmax that nested quantization stands for: the nested map's value for the code, times the absmax of the code's
/// own block, plus the weight's offset; two roundings, the product's and the sum's, as bitsandbytes' dequantize_4bit.
__device__ __forceinline__ float nested_scale(float map_value, float nested_absmax, float offset) {
  return __fadd_rn(multiply_ftz(map_value, nested_absmax), offset);
}

/// The scales of a weight's blocks, stored or nested.
struct BlockScales {
  const float* absmax;
  const std::uint8_t* absmax_codes;
  const float* nested_absmax;
  const float* nested_map;
  const float* offset;

  explicit BlockScales(const DeviceWeight4bit& weight)
      : absmax(weight.absmax),
        absmax_codes(weight.absmax_codes),
        nested_absmax(weight.nested_absmax),
        nested_map(weight.nested_map),
        offset(weight.offset) {}

  [[nodiscard]] __device__ __forceinline__ bool nested() const { return absmax == nullptr; }

  /// absmax of a block.
  __device__ __forceinline__ float operator[](std::int64_t block) const {
    if (!nested()) return __ldg(absmax + block);
    const float map_value = __ldg(nested_map + __ldg(absmax_codes + block));
    const float block_absmax = __ldg(nested_absmax + block / kNestedBlocksize);
    return nested_scale(map_value, block_absmax, __ldg(offset));
  }
};

/// The sixteen values of a codebook, passed to kernels by value.
struct CodebookValues {
  float value[16];

  explicit CodebookValues(QuantType type) {
    for (int code = 0; code < 16; ++code) value[code] = codebook(type)[code];
  }
};

}  // namespace qshard::optimized
