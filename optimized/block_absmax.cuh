#pragma once

#include <cfloat>
#include <type_traits>

#include "optimized/quantize_run.cuh"

// The largest magnitudes of blocks whose elements lie in runs of neighbouring lanes. NaN does not count.
namespace qshard::optimized {

/// The larger magnitude of each of two pairs of 16-bit numbers, the number where one is NaN; the signs mean nothing.
template <typename T>
__device__ __forceinline__ std::uint32_t larger_magnitudes(std::uint32_t a, std::uint32_t b) {
  std::uint32_t larger = 0;
#if __CUDA_ARCH__ >= 860
  if constexpr (std::is_same_v<T, __half>) {
    asm("max.xorsign.abs.f16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  } else {
    asm("max.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  }
#else
  using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
  reinterpret_cast<Pair&>(larger) =
      __hmax2(__habs2(reinterpret_cast<const Pair&>(a)), __habs2(reinterpret_cast<const Pair&>(b)));
#endif
  return larger;
}

/// The largest magnitude of a run, and those of two runs side by side: the first one's in the lower half.
__device__ __forceinline__ float largest_of(const Run<float>& run) {
  float largest = -FLT_MAX;
#pragma unroll
  for (int e = 0; e < kRun; ++e) largest = max_ftz(largest, fabsf(run[e]));
  return largest;
}

template <typename T>
__device__ __forceinline__ std::uint32_t largest_of(const Run<T>& first, const Run<T>& second) {
  const auto halves_of = [](const std::uint32_t(&words)[4]) {
    return larger_magnitudes<T>(larger_magnitudes<T>(words[0], words[1]), larger_magnitudes<T>(words[2], words[3]));
  };
  const std::uint32_t a = halves_of(first.words);
  const std::uint32_t b = halves_of(second.words);
  return larger_magnitudes<T>(__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632));
}

/// Combines each value with those of the `lanes` neighbouring lanes that share a block; each of them gets the results.
template <int kCount, typename Value, typename Combine>
__device__ __forceinline__ void combine_lanes(Value (&values)[kCount], unsigned lanes, Combine combine) {
#pragma unroll
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    if (distance >= lanes) break;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = combine(values[i], __shfl_xor_sync(0xFFFFFFFFU, values[i], distance));
    }
  }
}

/// Sets absmax[i] to the largest magnitude in the runs i of the `lanes` neighbouring lanes that share a block; -FLT_MAX
/// where all are NaN.
template <int kRuns, typename T>
__device__ __forceinline__ void block_absmax(const Run<T> (&runs)[kRuns], unsigned lanes, float (&absmax)[kRuns]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < kRuns; ++i) absmax[i] = largest_of(runs[i]);
    combine_lanes(absmax, lanes, max_ftz);
  } else {
    std::uint32_t pairs[kRuns / 2];
#pragma unroll
    for (int i = 0; i < kRuns / 2; ++i) pairs[i] = largest_of(runs[2 * i], runs[2 * i + 1]);
    combine_lanes(pairs, lanes, larger_magnitudes<T>);
#pragma unroll
    for (int i = 0; i < kRuns; ++i) absmax[i] = max_ftz(-FLT_MAX, fabsf(half_of<T>(pairs[i / 2], i % 2)));
  }
}

}  // namespace qshard::optimized
