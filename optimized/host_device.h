#pragma once

// For arithmetic on whole numbers that kernels and tests on a CPU share: headers with it need no CUDA.
#ifdef __CUDACC__
#define QSHARD_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define QSHARD_HOST_DEVICE inline
#endif

namespace qshard::optimized {

QSHARD_HOST_DEVICE int smaller(int a, int b) {
  return a < b ? a : b;
}

QSHARD_HOST_DEVICE int larger(int a, int b) {
  return a < b ? b : a;
}

}  // namespace qshard::optimized
