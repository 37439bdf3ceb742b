#pragma once

#include <cstdint>

#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/ptx/signals.cuh"
#include "optimized/ptx/uniform.cuh"

namespace qshard::optimized::warpgroup {

/// Writes the sums of a warp's rows to y.
template <typename T, int kColumnTiles>
__device__ __forceinline__ void store_sums(const Task<T>& task, const float (&sums)[4 * kColumnTiles], int tile,
                                           int own_row) {
#pragma unroll
  for (int i = 0; i < 4 * kColumnTiles; ++i) {
    const int row = i / 4 * 8 + 2 * (static_cast<int>(threadIdx.x) % 4) + i % 2;
    const std::int64_t feature = std::int64_t{tile} * kTileRows + own_row + i / 2 % 2 * 8;
    if (row >= task.rows || feature >= task.out_features) continue;
    *reinterpret_cast<std::uint16_t*>(task.y + row * task.y_stride + feature) =
        static_cast<std::uint16_t>(round_pair<T>(sums[i], 0.0F));
  }
}

/// Finishes a tile that thread blocks share: each leaves its sums, the last one adds up all, in the blocks' order. Each
/// warp does so by itself for its rows.
template <typename T, int kColumnTiles>
__device__ __forceinline__ void share_sums(const Task<T>& task, const float (&sums)[4 * kColumnTiles], int tile,
                                           int own_row) {
  const WorkSplit& split = task.split;
  const int self = task.worker();
  const int first = split.worker_of(tile * split.steps);
  const int last = split.worker_of((tile + 1) * split.steps - 1);
  const auto partials = [&](int worker) {
    return task.partials + static_cast<std::int64_t>(split.slot(worker, tile)) * 4 * kColumnTiles * kMultipliers +
           threadIdx.x;
  };
  int* arrivals = task.arrivals + tile * (kMultiplierWarps) + threadIdx.x / 32;
  if (uniform(load_relaxed(arrivals)) != last - first) {
    float* own = partials(self);
#pragma unroll
    for (int i = 0; i < 4 * kColumnTiles; ++i) __stcg(own + i * kMultipliers, sums[i]);
    __syncwarp();
    int arrived = 0;
    if (threadIdx.x % 32 == 0) arrived = add_release_acquire(arrivals, 1);
    if (uniform(arrived) != last - first) return;
  } else {
    __threadfence();
  }
  float all[4 * kColumnTiles] = {};
  for (int worker = first; worker <= last; ++worker) {
    const float* from = partials(worker);
#pragma unroll
    for (int i = 0; i < 4 * kColumnTiles; ++i) all[i] += worker == self ? sums[i] : __ldcg(from + i * kMultipliers);
  }
  store_sums<T, kColumnTiles>(task, all, tile, own_row);
}

}  // namespace qshard::optimized::warpgroup
