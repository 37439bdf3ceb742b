#pragma once

// Sums and maxima over the threads of a warp or a thread block, in an order that is always the same.
namespace qshard::optimized {

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

/// The larger one, the number where one is NaN.
struct Maximum {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Combines the values of neighbouring groups of kLanes lanes in a butterfly: each lane has the whole result, with the
/// same bits, since `combine` is commutative.
template <int kLanes, typename T, typename Combine>
__device__ __forceinline__ T lanes_reduce(T value, Combine combine) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(0xFFFFFFFFU, value, distance));
  }
  return value;
}

/// The combination of the values of a team of kThreads threads: a warp, or a whole thread block of a power of two
/// warps. Every thread of the team calls it and gets the result.
template <int kThreads, typename T, typename Combine>
__device__ __forceinline__ T team_reduce(T value, Combine combine) {
  value = lanes_reduce<32>(value, combine);
  if constexpr (kThreads == 32) return value;
  constexpr int kWarps = kThreads / 32;
  __shared__ T of_warp[kWarps];
  __syncthreads();  // the last call's results have been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return lanes_reduce<kWarps>(of_warp[threadIdx.x % kWarps], combine);
}

}  // namespace qshard::optimized
