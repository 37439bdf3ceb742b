#pragma once

#include "core/tensor/tensor.h"

namespace qshard::reference {

/// The weight with an adapter in it, W + scaling * B A, for W [out, in], A [r, in] and B [out, r] of any floating
/// dtypes, as PEFT's merge_and_unload has it with adapters loaded in float32, its default: the product, times
/// `scaling`, plus W in float, rounded once to W's dtype. The sums over r are in float in an order of their own, so
/// that a value may differ from PEFT's by one unit in the last place. Deterministic. Throws Error(bad_input) where
/// shapes do not fit.
Tensor merge_lora(const TensorView& weight, const TensorView& a, const TensorView& b, double scaling);

}  // namespace qshard::reference
