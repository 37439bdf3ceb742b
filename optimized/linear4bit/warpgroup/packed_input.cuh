#pragma once

#include <cstdint>

#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/tensor_copy.cuh"

namespace qshard::optimized::warpgroup {

constexpr int kPackThreads = 256;

/// Four elements, zeros where there are none.
template <bool kAligned, typename T>
__device__ __forceinline__ uint2 load_four(const T* x, bool inside) {
  if (!inside) return {};
  if constexpr (kAligned) {
    return *reinterpret_cast<const uint2*>(x);
  } else {
    alignas(sizeof(uint2)) const T values[4] = {x[0], x[1], x[2], x[3]};
    return *reinterpret_cast<const uint2*>(values);
  }
}

/// Lays x out as wgmma() reads it, rows past the end as zeros. Lane t of a quad holds run t, 16 elements,
/// of a chunk; matrix instruction s takes elements 4 s to 4 s + 3 of the four runs: first the lower pair of every lane,
/// then the upper one: 16 bytes each at [chunk][s][row / 8][pair][row % 8]. One thread both pairs of one s and row.
/// Sets `arrivals` to zero besides.
template <bool kAligned, typename T>
__global__ void __launch_bounds__(kPackThreads)
    pack_kernel(const T* x, std::int64_t x_stride, int rows, int in_features, int padded_rows, std::int64_t count,
                uint4* packed, int* arrivals, int arrival_count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  // In this order: whoever starts next may read what the kernels before this one wrote.
  grid_dependency_synchronize();
  trigger_programmatic_launch_completion();
#endif
  if (i < arrival_count) arrivals[i] = 0;
  if (i >= count) return;
  const int s = static_cast<int>(i % kInstructions);
  const int row = static_cast<int>(i / kInstructions % padded_rows);
  const std::int64_t chunk = i / (kInstructions * padded_rows);
  uint2 runs[4];
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    const std::int64_t k = chunk * kChunk + 16 * t + 4 * s;
    runs[t] = load_four<kAligned>(x + row * x_stride + k, row < rows && k < in_features);
  }
  uint4* to = packed + ((chunk * kInstructions + s) * (padded_rows / 8) + row / 8) * 16 + row % 8;
  to[0] = make_uint4(runs[0].x, runs[1].x, runs[2].x, runs[3].x);
  to[8] = make_uint4(runs[0].y, runs[1].y, runs[2].y, runs[3].y);
}

}  // namespace qshard::optimized::warpgroup
