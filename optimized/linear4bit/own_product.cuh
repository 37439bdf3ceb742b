#pragma once

namespace qshard::optimized {

/// Of the products of one launch, whose thread blocks follow each other, the one that this thread block belongs to.
template <typename Task, int kProducts>
__device__ __forceinline__ int own_product(const Task (&tasks)[kProducts]) {
  int own = 0;
#pragma unroll
  for (int other = 1; other < kProducts; ++other) {
    if (static_cast<int>(blockIdx.x) >= tasks[other].first_block) own = other;
  }
  return own;
}

}  // namespace qshard::optimized
