#pragma once

// What is the same in all lanes of a warp, told to the compiler by a shuffle: it keeps what depends on it in uniform
// registers, and no branch or loop that depends on it parts the warp. Behind one that does, the operands of matrix
// instructions would have to be moved to uniform registers one by one.
namespace qshard::optimized {

__device__ __forceinline__ int uniform(int value) {
  return __shfl_sync(0xFFFFFFFFU, value, 0);
}

/// Of the thread block's warps and warpgroups the one that this is.
__device__ __forceinline__ int warp_index() {
  return uniform(static_cast<int>(threadIdx.x) / 32);
}
__device__ __forceinline__ int warpgroup_index() {
  return uniform(static_cast<int>(threadIdx.x) / 128);
}

}  // namespace qshard::optimized
