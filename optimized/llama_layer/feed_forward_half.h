#pragma once

#include "optimized/llama_layer/layer_pass.h"

// The second half of a decoder layer, tile by tile, so that what lies between the products need not exist for all
// tokens at once:
//
//   n = norm(mlp_residual); y = mlp_residual + down_proj(silu(gate_proj(n)) * up_proj(n))
namespace qshard::optimized {

/// y, of all tokens. keep: gate and up of all tokens are kept.
void feed_forward_half(const LayerPass& pass, void* y, bool keep);

/// Turns dy, the gradient of y, into that of mlp_residual in place, and adds the adapters' gradients. Gate and up are
/// used up where they are kept, and made again where they are not.
void feed_forward_half_backward(const LayerPass& pass, void* dy);

}  // namespace qshard::optimized
