#include "optimized/linear4bit/cluster/cluster_cut.h"

#include <algorithm>
#include <limits>

#include "core/tensor/weight4bit.h"

namespace qshard::optimized::cluster {

namespace {

/// Bytes of the input, beside what else passes through the L2 cache of 50 MiB.
constexpr std::int64_t kInputThatStays = std::int64_t{32} << 20;

TileOrder order_of(const Linear4bitProblem& problem, const TileShape& shape, int tiles) {
  const int left_out = std::max(problem.device.other.busy, problem.device.other.at_most);
  return {tiles, static_cast<int>(block_count(problem.in_width(), shape.step)),
          std::max(1, (problem.device.multiprocessors - left_out) / kCluster), shape.least_steps,
          problem.rows * problem.in_width() * 2 <= kInputThatStays};
}

}  // namespace

ClusterCut::ClusterCut(const Linear4bitProblem& problem, const TileShape& shape)
    : columns(problem.rows, shape),
      tiles(static_cast<int>(block_count(problem.out_width(), shape.features)) * columns.tiles),
      order(order_of(problem, shape, tiles)) {
  const int shared = tiles - order.whole;
  const std::size_t sums = static_cast<std::size_t>(kCluster) * columns.columns * kTileFeatures;
  workspace_bytes = shared > 0 ? static_cast<std::size_t>(order.rest.slots()) * sums * sizeof(float) : 0;
}

bool supports(const Linear4bitProblem& problem, const TileShape& shape) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
  const Linear4bitShape& weight = problem.shape;
  if (!problem.device.has_warpgroups || weight.dtype == DType::f32 || weight.blocksize < kChunk ||
      !problem.whole_blocks() || std::max({problem.rows, weight.out_features, weight.in_features}) > kMost ||
      weight.out_features * weight.in_features / weight.blocksize > kMost) {
    return false;
  }
  const std::int64_t most_column_tiles = problem.rows / shape.column_counts.back() + 2;
  return block_count(problem.out_width(), shape.features) * most_column_tiles <=
         kMost / block_count(problem.in_width(), shape.step);
}

}  // namespace qshard::optimized::cluster
