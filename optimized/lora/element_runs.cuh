#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "optimized/device_math.cuh"
#include "optimized/ptx/async_copy.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/sign_bytes.cuh"

// Runs of eight neighbouring 16-bit elements, in four words: what a lane loads at once. Their scale and their mask.
namespace qshard::optimized {

inline constexpr int kRun = 8;

/// lora_rank_stride() on the device.
__device__ __forceinline__ int padded_rank(std::int64_t rank) {
  return (static_cast<int>(rank) + kRun - 1) / kRun * kRun;
}

template <typename T>
__device__ __forceinline__ float2 split_pair(std::uint32_t pair);

template <>
__device__ __forceinline__ float2 split_pair<__nv_bfloat16>(std::uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000U)};
}

template <>
__device__ __forceinline__ float2 split_pair<__half>(std::uint32_t pair) {
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}

/// Both elements multiplied in float and rounded to T.
template <typename T>
__device__ __forceinline__ std::uint32_t scale_pair(std::uint32_t pair, float scale) {
  const float2 values = split_pair<T>(pair);
  return round_pair<T>(values.x * scale, values.y * scale);
}

template <typename T>
__device__ __forceinline__ uint4 scale_run(const uint4& run, float scale) {
  return {scale_pair<T>(run.x, scale), scale_pair<T>(run.y, scale), scale_pair<T>(run.z, scale),
          scale_pair<T>(run.w, scale)};
}

/// The run with 0 for the elements whose bit of `mask` (element 0: the lowest) is not set.
__device__ __forceinline__ uint4 keep_run(const uint4& run, std::uint32_t mask) {
  // Four copies of the byte, one bit further to the left each: the highest bits of their bytes are bits 7, 6, 5 and 4.
  const std::uint32_t upper = mask * 0x08040201U;
  const std::uint32_t lower = upper << 4;  // bits 3, 2, 1 and 0
  return {run.x & spread_signs(lower, 0, 0xAABBU), run.y & spread_signs(lower, 0, 0x8899U),
          run.z & spread_signs(upper, 0, 0xAABBU), run.w & spread_signs(upper, 0, 0x8899U)};
}

/// The run that starts at element `first` of a row of `count` elements, with zeros past its end; none of a row that is
/// not `present`. kWide: rows are multiples of 16 bytes, so that a run is whole or lies outside.
template <bool kWide, typename T>
__device__ __forceinline__ uint4 load_run(const T* row, int first, int count, bool present) {
  uint4 run = {};
  if constexpr (kWide) {
    if (present && first < count) run = *reinterpret_cast<const uint4*>(row + first);
  } else {
    std::uint32_t words[4] = {};
    const auto* elements = reinterpret_cast<const std::uint16_t*>(row);
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      if (present && first + e < count) words[e / 2] |= static_cast<std::uint32_t>(elements[first + e]) << e % 2 * 16;
    }
    run = {words[0], words[1], words[2], words[3]};
  }
  return run;
}

/// The same into shared memory, asynchronously where it can be.
template <bool kWide, typename T>
__device__ __forceinline__ void stage_run(std::uint32_t shared, const T* row, int first, int count, bool present) {
  if constexpr (kWide) {
    const bool inside = present && first < count;
    cp_async<16>(shared, inside ? row + first : row, inside);
  } else {
    store_shared_u32x4(shared, load_run<false>(row, first, count, present));
  }
}

}  // namespace qshard::optimized
