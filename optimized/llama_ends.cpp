#include "optimized/llama_ends.h"

#include <algorithm>

#include "optimized/cross_entropy.h"
#include "optimized/rmsnorm.h"
#include "optimized/sum.h"

namespace qshard::optimized {

namespace {

NormShape norm_shape(const HeadWeights& head, std::int64_t tokens) {
  return {tokens, 1, head.hidden, head.hidden, head.hidden, head.epsilon, head.dtype};
}

// Tokens whose logits exist at once: a multiple of 128, so that the product fills its tiles.
std::int64_t piece_tokens(const HeadWeights& head, std::int64_t tokens) {
  const std::int64_t row_bytes = head.vocab * static_cast<std::int64_t>(size_of(head.dtype));
  return std::min(tokens, std::max<std::int64_t>(1, kMostLogitBytes / row_bytes / 128) * 128);
}

void multiply(const StepResources& resources, const MatmulShape& shape, const void* a, const void* b, void* c) {
  const auto workspace = resources.arena->take(kMatmulWorkspaceBytes, "workspace");
  resources.launch(
      [&] { matmul(*resources.matmul, shape, a, b, c, workspace.as(), kMatmulWorkspaceBytes, resources.stream); });
}

}  // namespace

void output_logits(const StepResources& resources, const HeadWeights& head, std::int64_t count, void* x,
                   const void* branch, void* logits) {
  const auto element = static_cast<std::int64_t>(size_of(head.dtype));
  const auto hidden = resources.arena->take(count * head.hidden * element, "head");
  resources.launch(
      [&] { add_rmsnorm_forward(norm_shape(head, count), branch, head.final_norm, x, hidden.as(), resources.stream); });
  multiply(resources, {count, head.vocab, head.hidden, head.hidden, head.hidden, head.vocab, true, head.dtype},
           hidden.as(), head.output_head, logits);
}

void output_loss(const StepResources& resources, const HeadWeights& head, const TokenRows& rows,
                 const float* gradient_scale, void* x, double* loss_sum) {
  const auto element = static_cast<std::int64_t>(size_of(head.dtype));
  const bool gradient = gradient_scale != nullptr;
  const std::int64_t piece = piece_tokens(head, rows.tokens);
  const auto losses = resources.arena->take(rows.tokens * 4, "head");
  const auto logits = resources.arena->take(piece * head.vocab * element, "logits");
  const auto dhidden = resources.arena->take(piece * head.hidden * element, "head");
  for (std::int64_t begin = 0; begin < rows.tokens; begin += piece) {
    const std::int64_t count = std::min(piece, rows.tokens - begin);
    std::byte* part = resources.dry_run() ? nullptr : static_cast<std::byte*>(x) + begin * head.hidden * element;
    output_logits(resources, head, count, part, nullptr, logits.as());
    resources.launch([&] {
      cross_entropy(count, head.vocab, head.vocab, head.dtype, logits.as(), rows.targets + begin, gradient_scale,
                    gradient, losses.as<float>() + begin, resources.stream);
    });
    if (!gradient) continue;
    multiply(resources, {count, head.hidden, head.vocab, head.vocab, head.hidden, head.hidden, false, head.dtype},
             logits.as(), head.output_head, dhidden.as());
    resources.launch([&] {
      rmsnorm_backward(norm_shape(head, count), part, head.final_norm, dhidden.as(), nullptr, part, nullptr,
                       resources.stream);
    });
  }
  resources.launch([&] { sum_losses(losses.as<float>(), rows.tokens, loss_sum, resources.stream); });
}

}  // namespace qshard::optimized
