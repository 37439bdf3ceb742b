#pragma once

#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_product.h"

// The sums of rank_product() and rank_gradient() by Hopper's warpgroup matrix instructions: the input passes through
// shared memory once for all projections, and is masked for each on its way from there to the registers.
namespace qshard::optimized::warpgroup_lora {

inline constexpr int kTileRows = 128;    // of a thread block, 64 a warpgroup: tokens, or features of a gradient
inline constexpr int kDepth = 128;       // features of a step, or tokens of a gradient
inline constexpr int kLeastSteps = 2;    // of a slice
inline constexpr int kRankColumns = 64;  // the most of a projection

/// A slice for each of a Hopper GPU's multiprocessors; never more than cut_product() and cut_gradient() make, whose
/// workspace holds the partial sums.
constexpr SumCut cut_sums(std::int64_t rows, std::int64_t depth) {
  const std::int64_t steps = divide_up(depth, kDepth);
  const std::int64_t most = std::max<std::int64_t>(1, steps / kLeastSteps);
  return cut_sum(steps, std::clamp<std::int64_t>(132 / divide_up(rows, kTileRows), 1, most));
}

/// What is summed, and along what.
enum class Sum {
  weight_rows,     // input weight^T along the features, weight [rank, features]
  weight_columns,  // input weight along the features, weight [features, rank]
  tokens,          // input^T factor along the tokens, factor [tokens, lora_rank_stride(rank)]
};

/// One projection: its weight or factor, and where its sums go: element (row, column) of slice s is
/// out[s * slice_stride + row * row_stride + column * column_stride]; but along features column_stride is 1, everything
/// else even, out aligned to 8 bytes, and nothing is added to.
struct RankSum {
  const void* right = nullptr;
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;
  float* out = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 0;
  int columns = 0;  // that are written
};

/// A Hopper GPU, runs of 16 bytes, ranks up to kRankColumns; all projections masked or none; of weight_columns one,
/// without a mask.
bool takes(Sum sum, bool wide, std::span<const RankSum> projections);

/// out = scale * sums, or out += them where `add`, for up to kMostProducts projections.
void run(Sum sum, DType dtype, const ScaledInput& input, std::span<const RankSum> projections, const SumCut& cut,
         std::int64_t slice_stride, float scale, bool add, cudaStream_t stream);

}  // namespace qshard::optimized::warpgroup_lora
