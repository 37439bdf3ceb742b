#include "optimized/llama_layer.h"

#include "optimized/llama_layer/adapted_linears.h"
#include "optimized/llama_layer/attention_half.h"
#include "optimized/llama_layer/feed_forward_half.h"
#include "optimized/llama_layer/layer_masks.h"
#include "optimized/llama_layer/layer_pass.h"

namespace qshard::optimized {

void layer_forward(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                   const void* x, void* y, bool keep, LayerActivations& activations) {
  const LayerPass pass{resources, context, weights, activations, true};
  activations.lora_h = pass.take(lora_h_elements(pass), "adapters' activations");
  make_layer_masks(pass);
  attention_half(pass, x);
  feed_forward_half(pass, y, keep);
}

void layer_activations(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                       const void* x, LayerActivations& activations) {
  const LayerPass pass{resources, context, weights, activations, false};
  make_layer_masks(pass);
  attention_half(pass, x);
}

void layer_backward(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                    const void* x, bool want_dx, void* dy, LayerActivations& activations) {
  const LayerPass pass{resources, context, weights, activations, false};
  make_layer_masks(pass);
  feed_forward_half_backward(pass, dy);
  // From here on dy is the gradient of mlp_residual: that of attention's output and, past it, of x.
  attention_half_backward(pass, x, want_dx, dy);
}

}  // namespace qshard::optimized
