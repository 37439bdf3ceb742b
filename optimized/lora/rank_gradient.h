#pragma once

#include <span>

#include "optimized/lora/rank_product.h"

namespace qshard::optimized {

/// One factor of few columns, and the gradient that its product with an input is added to.
struct RankGradient {
  const void* factor = nullptr;  // [tokens, lora_rank_stride(rank)]
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;
  float* sum = nullptr;
};

/// sum += scale * mask(input)^T factor for up to kMostSharedInputs gradients with f16 or bf16 tensors: sum is
/// [features, rank], or its transpose where `transposed`. `wide` as for rank_product(). Partial sums go to `partials`,
/// [slices of cut_gradient(), features * the sum of the ranks], where there is more than one slice.
void rank_gradient(DType dtype, bool wide, bool transposed, const ScaledInput& input,
                   std::span<const RankGradient> gradients, float* partials, cudaStream_t stream,
                   RankKernel kernel = RankKernel::fastest);

}  // namespace qshard::optimized
