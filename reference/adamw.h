#pragma once

#include <cstdint>
#include <span>

#include "core/run/engine_options.h"

namespace qshard::reference {

/// One AdamW step (Loshchilov & Hutter, arXiv 1711.05101; the order of
/// torch.optim.AdamW with fused=True), elementwise, g = gradient:
///   p <- p (1 - lr * weight_decay)
///   m <- m + (1 - beta1) (g - m)              exp_avg
///   v <- beta2 v + (1 - beta2) g g            exp_avg_sq
///   p <- p - lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
/// All spans have one length; `step` counts from 1. When they are stored p is rounded to `dtype`, m and v to the dtype
/// of options.moments (lora_dtype: `dtype`, as torch keeps the state of a 16-bit parameter; 8-bit ones:
/// adamw8bit_update()); the new p comes from m and v as they are before that. Elementwise, so a shard's result is the
/// whole's. Deterministic.
void adamw_update(std::span<float> parameter, std::span<const float> gradient, std::span<float> exp_avg,
                  std::span<float> exp_avg_sq, const AdamWOptions& options, DType dtype, double learning_rate,
                  std::int64_t step);

/// Factor that brings gradients of global norm `norm` down to `max_norm`: min(1, max_norm / (norm + 1e-6)), torch's
/// clip_grad_norm_. 1 where max_norm is 0.
double clip_factor(double norm, double max_norm);

}  // namespace qshard::reference
