#pragma once

#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_product.h"

// rank_product()'s partial sums by Hopper's warpgroup matrix instructions: the input passes through shared memory once
// for all products, and each product masks it on its way from there to the registers.
namespace qshard::optimized::warpgroup_lora {

inline constexpr int kProductTokens = 128;  // of a tile: 64 a warpgroup
inline constexpr int kProductDepth = 128;   // features of a stage
inline constexpr int kProductLeast = 2;     // stages of a slice
inline constexpr int kRankColumns = 64;     // the most of a product

/// A slice for each of a Hopper GPU's multiprocessors; never more partial sums than cut_product() makes.
constexpr SumCut cut_product(std::int64_t tokens, std::int64_t features) {
  const std::int64_t steps = divide_up(features, kProductDepth);
  const std::int64_t most = std::max<std::int64_t>(1, steps / kProductLeast);
  return cut_sum(steps, std::clamp<std::int64_t>(132 / divide_up(tokens, kProductTokens), 1, most));
}

/// A Hopper GPU, runs of 16 bytes, ranks up to kRankColumns; all products masked or none; of weights that are not
/// transposed one, without a mask.
bool takes(bool wide, bool transposed, std::span<const RankProduct> products);

/// Writes `partials`, [slices, tokens, columns]: the columns of each product begin at its one of `first_columns`.
void multiply(DType dtype, bool transposed, const ScaledInput& input, std::span<const RankProduct> products,
              std::span<const int> first_columns, int columns, const SumCut& cut, float* partials, cudaStream_t stream);

}  // namespace qshard::optimized::warpgroup_lora
