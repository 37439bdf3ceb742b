#pragma once

#include "optimized/attention/attention.h"
#include "optimized/llama_layer/layer_pass.h"

// The first half of a decoder layer, of all tokens at once:
//
//   n = norm(x); q, k, v = the projections of n, heads normed where the family does so, q and k rotated
//   mlp_residual = x + o_proj(attention(q, k, v))
namespace qshard::optimized {

/// Attention of a layer over rows of query heads, key heads and value heads.
[[nodiscard]] AttentionShape attention_shape(const ModelConfig& config, std::int64_t layer, DType dtype);

/// Fills what is kept of the pass up to mlp_residual.
void attention_half(const LayerPass& pass, const void* x);

/// Turns dy, the gradient of mlp_residual, into that of x in place, and adds the adapters' gradients. Where `want_dx`
/// is false dy is left undefined.
void attention_half_backward(const LayerPass& pass, const void* x, bool want_dx, void* dy);

}  // namespace qshard::optimized
