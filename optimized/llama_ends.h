#pragma once

#include <cstdint>

#include "core/tensor/dtype.h"
#include "optimized/step_resources.h"
#include "optimized/token_rows.h"

namespace qshard::optimized {

/// The end of the model after its decoder layers; frozen, dense.
struct HeadWeights {
  const void* final_norm = nullptr;   // [hidden]
  const void* output_head = nullptr;  // [vocab, hidden]; the embedding itself where they are tied
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  double epsilon = 0;
  DType dtype = DType::bf16;
};

/// Adds to loss_sum (one double in device memory) the sum of -log softmax(head(final_norm(x)))[target] over the tokens
/// that have a target. With gradient_scale (one float in device memory) x becomes the gradient of that sum times
/// gradient_scale[0]; without it x is only read. x: [tokens, hidden]. Works through the tokens in pieces, so that the
/// logits of a whole batch never exist at once: kMostLogitBytes at a time. Deterministic.
inline constexpr std::int64_t kMostLogitBytes = std::int64_t{128} << 20;
void output_loss(const StepResources& resources, const HeadWeights& head, const TokenRows& rows,
                 const float* gradient_scale, void* x, double* loss_sum);

/// Logits of `count` rows of x, [count, vocab] in the model's dtype; with a branch, of round(x + branch), which x then
/// becomes.
void output_logits(const StepResources& resources, const HeadWeights& head, std::int64_t count, void* x,
                   const void* branch, void* logits);

}  // namespace qshard::optimized
