#pragma once

#include "optimized/lora/rank_gradient.h"
#include "optimized/lora/rank_product.h"
#include "optimized/lora/rank_update.h"

// rank_product(), rank_gradient() and rank_update() for f32 tensors: correct, not tuned. Sums are in float, in an order
// that the shape alone decides.
namespace qshard::optimized {

void rank_product_plain(bool transposed, const ScaledInput& input, std::span<const RankProduct> products,
                        cudaStream_t stream);

void rank_gradient_plain(bool transposed, const ScaledInput& input, std::span<const RankGradient> gradients,
                         cudaStream_t stream);

void rank_update_plain(bool transposed, const UpdatedOutput& output, std::span<const RankUpdate> updates,
                       cudaStream_t stream);

}  // namespace qshard::optimized
