#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/dynamic_map_search.cuh"
#include "optimized/dynamic_map_sums.h"
#include "optimized/team_reduce.cuh"

// The codes of centred absmax values, as bitsandbytes' 8-bit quantization finds them.
namespace qshard::optimized {

/// A nested map for the search, and for the look-up where the map fits it.
struct NestedMap {
  SearchTree tree;
  DynamicMapSums sums;
};

/// By all kThreads threads of a thread block. Returns to each whether the map fits the look-up.
template <int kThreads>
__device__ __forceinline__ bool build_nested_map(NestedMap& nested, const float* map) {
  constexpr int kCellsAThread = DynamicMapSums::kCells / kThreads;
  static_assert(kCellsAThread * kThreads == DynamicMapSums::kCells);
  build_tree(nested.tree, map);
  if (threadIdx.x == 255) nested.tree.value[255] = INFINITY;  // where nothing parts the last entry from a next one
  __syncthreads();
  const int first = static_cast<int>(threadIdx.x) * kCellsAThread;
  const float values[] = {DynamicMapSums::value_at(DynamicMapSums::first_position(first))};
  std::uint32_t codes[1];
  nearest_codes(nested.tree, values, codes);
  const auto threshold_at = [&](int i) { return nested.tree.value[__brev(i) >> 24]; };
  auto below = static_cast<int>(codes[0]);
  bool fits = true;
#pragma unroll
  for (int i = 0; i < kCellsAThread; ++i) fits &= nested.sums.build_cell(first + i, below, threshold_at);
  return __syncthreads_and(fits) != 0;
}

/// The larger of the two, NaN where one is NaN.
__device__ __forceinline__ float max_or_nan_ftz(float a, float b) {
  float result;
  asm("max.ftz.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

/// The largest magnitude of a warp's values, NaN where one of them is NaN. Magnitudes compare as their bits do, and
/// NaN's are the highest.
template <int kCount>
__device__ __forceinline__ float largest_or_nan(const float (&values)[kCount]) {
  float largest = 0.0F;
#pragma unroll
  for (int i = 0; i < kCount; ++i) largest = max_or_nan_ftz(largest, fabsf(values[i]));
  return __uint_as_float(__reduce_max_sync(0xFFFFFFFFU, __float_as_uint(largest)));
}

/// The largest magnitude of a warp's values that are not NaN, -FLT_MAX where all are, as bitsandbytes finds it.
template <int kCount>
__device__ __forceinline__ float largest_number(const float (&values)[kCount]) {
  float largest = -FLT_MAX;
#pragma unroll
  for (int i = 0; i < kCount; ++i) largest = max_ftz(largest, fabsf(values[i]));
  return lanes_reduce<32>(largest, [](float a, float b) { return max_ftz(a, b); });
}

/// By a warp: the codes of a nested block's values, each in the eight highest bits, by look-up where map and values
/// allow it, else by search. Returns the block's absmax. Scales `values` on the way.
template <int kCount>
__device__ __forceinline__ float nested_codes(const NestedMap& nested, bool map_fits, float (&values)[kCount],
                                              std::uint32_t (&codes)[kCount]) {
  float largest = largest_or_nan(values);
  if (map_fits && DynamicMapSums::takes(largest)) {
    const float multiplier = multiply_ftz(reciprocal_ftz(largest), DynamicMapSums::kScale);
#pragma unroll
    for (int i = 0; i < kCount; ++i) codes[i] = nested.sums.sum(multiply_ftz(values[i], multiplier));
    return largest;
  }
  largest = largest_number(values);
  const float reciprocal = reciprocal_ftz(largest);
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = multiply_ftz(values[i], reciprocal);
  nearest_codes(nested.tree, values, codes);
#pragma unroll
  for (int i = 0; i < kCount; ++i) codes[i] <<= 24;
  return largest;
}

}  // namespace qshard::optimized
