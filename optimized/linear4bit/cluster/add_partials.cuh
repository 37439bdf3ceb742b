#pragma once

namespace qshard::optimized::cluster {

/// sums += what another sharer left, kStride apart. The loads of a group are on their way at the same time.
template <int kStride, int kSums>
__device__ __forceinline__ void add_partials(const float* from, float (&sums)[kSums]) {
  constexpr int kGroup = [] {
    int most = 4;
    for (int size = 4; size <= 32; size += 4) most = kSums % size == 0 ? size : most;
    return most;
  }();
#pragma unroll
  for (int i = 0; i < kSums; i += kGroup) {
    float values[kGroup];
#pragma unroll
    for (int j = 0; j < kGroup; ++j) values[j] = __ldcg(from + (i + j) * kStride);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) sums[i + j] += values[j];
  }
}

}  // namespace qshard::optimized::cluster
