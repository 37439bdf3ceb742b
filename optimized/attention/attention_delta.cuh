#pragma once

#include <cstdint>
#include <cstring>

#include "optimized/attention/attention_task.h"
#include "optimized/device_math.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

/// kWidth elements of T as floats; kWidth 8 wants 16-byte alignment and 2-byte elements.
template <typename T, int kWidth>
__device__ __forceinline__ void load_floats(const T* from, float (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    values[0] = to_float(*from);
  } else {
    static_assert(kWidth * sizeof(T) == sizeof(uint4));
    const uint4 bits = *reinterpret_cast<const uint4*>(from);
    T elements[kWidth];
    std::memcpy(elements, &bits, sizeof bits);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] = to_float(elements[i]);
  }
}

/// delta = do . o in float, of every head of every token: kDeltaLanes lanes for each, whose sums are added pairwise.
/// kWidth divides head_dim.
inline constexpr int kDeltaLanes = 16;
inline constexpr int kDeltaThreads = 256;

template <typename T, int kWidth>
__global__ void attention_delta(AttentionTask<T> task) {
  begin_early_kernel();
  const std::int64_t item =
      (static_cast<std::int64_t>(blockIdx.x) * kDeltaThreads + threadIdx.x) / kDeltaLanes;  // heads fastest
  const auto lane = static_cast<int>(threadIdx.x) % kDeltaLanes;
  const auto token = item / task.heads;
  const auto head = item % task.heads;
  float sum = 0.0F;
  if (token < task.tokens) {
    const std::int64_t at = token * task.o_stride + head * task.head_dim;
    for (int column = lane * kWidth; column < task.head_dim; column += kDeltaLanes * kWidth) {
      float o[kWidth];
      float dout[kWidth];
      load_floats(task.o + at + column, o);
      load_floats(task.dout + at + column, dout);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum = fmaf(o[i], dout[i], sum);
    }
  }
#pragma unroll
  for (int other = kDeltaLanes / 2; other > 0; other /= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, other);
  if (lane == 0 && token < task.tokens) task.delta[head * task.tokens + token] = sum;
}

/// dk and dv: the sum of their partial sums in the order of the splits, rounded to T. One element a thread.
template <typename T>
__global__ void add_partial_gradients(AttentionTask<T> task) {
  begin_early_kernel();
  const std::int64_t width = static_cast<std::int64_t>(task.kv_heads) * task.head_dim;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= task.tokens * width) return;
  float dk = 0.0F;
  float dv = 0.0F;
  for (int split = 0; split < task.splits; ++split) {
    dk += task.partial_k[split * task.tokens * width + i];
    dv += task.partial_v[split * task.tokens * width + i];
  }
  const std::int64_t at = i / width * task.kv_stride + i % width;
  task.dk[at] = from_float<T>(dk);
  task.dv[at] = from_float<T>(dv);
}

}  // namespace qshard::optimized
