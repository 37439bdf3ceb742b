#pragma once

#include "core/tensor/tensor.h"

namespace qshard::reference {

/// The weight with an adapter in it, for W [out, in], A [r, in] and B [out, r] of any floating dtypes, as PEFT's
/// merge_and_unload has it with adapters loaded in float32, its default. Without `magnitude` (an empty view) it is
///   W + scaling * B A,
/// and with the magnitudes m [out] of DoRA
///   m / n * (W + scaling * B A),   n [out] the lengths of the rows of that sum.
/// Everything is in float, rounded once to W's dtype at the end. The sums over r run upwards with one rounding a term
/// (fused); those of n are eight, element i going to sum i mod 8, added up from the first to the last: the orders in
/// which PyTorch 2.11 sums on an x86 CPU. Deterministic. Throws Error(bad_input) where shapes do not fit.
Tensor merge_lora(const TensorView& weight, const TensorView& a, const TensorView& b, double scaling,
                  const TensorView& magnitude = {});

/// b + scaling * added, for two vectors of one length, in float and rounded once to b's dtype: a layer's bias with that
/// of lora_bias. Throws Error(bad_input) where shapes do not fit.
Tensor merge_bias(const TensorView& bias, const TensorView& added, double scaling);

}  // namespace qshard::reference
