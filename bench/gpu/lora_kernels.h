#pragma once

#include <cstdint>

#include "bench/gpu/step_kernel.h"
#include "core/tensor/dtype.h"

namespace qshard::bench {

/// A decoder layer whose seven projections have adapters of rank 64, with dropout 0.1.
struct AdaptedLayer {
  std::int64_t tokens, hidden, intermediate;
  DType dtype;
};

/// The masks of all seven projections; bytes: the bits.
StepKernel dropout_masks_kernel(const AdaptedLayer& layer);
/// h of q, k and v, which share an input; bytes: that input, the masks, A and h.
StepKernel lora_down_kernel(const AdaptedLayer& layer);
/// y of a projection to `hidden` features; bytes: y read and written, h and B.
StepKernel lora_up_add_kernel(const AdaptedLayer& layer);
/// g and dB of a projection to `hidden` features; bytes: dy once (twice are moved), h, B, g, dB read and written.
StepKernel lora_up_backward_kernel(const AdaptedLayer& layer);
/// dA of q, k and v; bytes: their input, the masks, g, dA read and written.
StepKernel lora_down_backward_kernel(const AdaptedLayer& layer);
/// dx of q, k and v; bytes: dx read and written, the masks, g and A.
StepKernel lora_input_gradient_kernel(const AdaptedLayer& layer);
/// All of the above for the whole layer, forward and backward, as a step without recomputation calls them.
StepKernel lora_layer_kernel(const AdaptedLayer& layer);

}  // namespace qshard::bench
