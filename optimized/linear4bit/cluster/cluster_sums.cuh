#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/cluster_task.cuh"

namespace qshard::optimized::cluster {

/// Writes a lane's sums to `out`; feature: what it has as row g of its instructions, an even one; row g + 8 is the one
/// after it.
template <typename T, int kSums>
__device__ __forceinline__ void store_sums(const Task<T>& task, const float (&sums)[kSums], int first_column,
                                           int feature) {
  const int column = first_column + 2 * (static_cast<int>(threadIdx.x) % 4);
  const bool both = feature + 1 < task.features;
#pragma unroll
  for (int i = 0; i < kSums; i += 4) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int at = column + i / 4 * 8 + j;
      if (at >= task.rows || feature >= task.features) continue;
      const std::uint32_t pair = round_pair<T>(sums[i + j], sums[i + 2 + j]);
      auto* const to = reinterpret_cast<std::uint16_t*>(task.out + at * task.out_stride + feature);
      if (both && task.paired_out) {
        *reinterpret_cast<std::uint32_t*>(to) = pair;
      } else {
        to[0] = static_cast<std::uint16_t>(pair);
        if (both) to[1] = static_cast<std::uint16_t>(pair >> 16);
      }
    }
  }
}

}  // namespace qshard::optimized::cluster
