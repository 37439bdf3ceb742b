#pragma once

#include <bit>
#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/cluster/cluster_cut.h"
#include "optimized/linear4bit/linear4bit_kernels.h"

namespace qshard::optimized::cluster {

/// Arguments of a kernel, but for its tensor maps; out [rows, features].
template <typename T>
struct Task {
  static_assert(kMultiplierWarps <= MatmulPlans::kCountsOfMultiprocessor, "a thread block a multiprocessor");

  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int in_features;
  int out_features;
  int features;
  int rows;
  T* out;
  std::int64_t out_stride;
  float* partials;  // [order.rest.slots(), kCluster, sums of a thread, kMultipliers]
  int* ready;       // [order.rest.workers, kCluster, kMultiplierWarps]: see ready_count(); zeros before and after
  TileOrder order;  // of clusters; tile t: features tile t / column_tiles, columns tile t % column_tiles
  int tiles;
  int column_tiles;
  bool paired_out;  // two neighbouring elements of out are one aligned word

  Task(const Linear4bitProblem& problem, const Linear4bitCall& call, const ClusterCut& cut)
      : scales(call.weight),
        codebook(problem.shape.quant_type),
        block_shift(std::countr_zero(static_cast<unsigned>(problem.shape.blocksize))),
        in_features(static_cast<int>(problem.shape.in_features)),
        out_features(static_cast<int>(problem.shape.out_features)),
        features(static_cast<int>(problem.out_width())),
        rows(static_cast<int>(problem.rows)),
        out(static_cast<T*>(call.out)),
        out_stride(call.out_stride),
        partials(static_cast<float*>(call.workspace)),
        ready(call.plans.counts()),
        order(cut.order),
        tiles(cut.tiles),
        column_tiles(cut.columns.tiles),
        paired_out(reinterpret_cast<std::uintptr_t>(call.out) % 4 == 0 && call.out_stride % 2 == 0) {}

  /// tile_features: of a tile.
  [[nodiscard]] __device__ __forceinline__ int first_feature(int tile, int tile_features) const {
    return tile / column_tiles * tile_features;
  }
};

}  // namespace qshard::optimized::cluster
