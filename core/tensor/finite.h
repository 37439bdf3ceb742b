#pragma once

#include <string_view>

#include "core/tensor/tensor.h"

namespace qshard {

/// Throws Error(bad_input), naming the tensor, where an element of f32, bf16 or f16 is NaN or infinite. For weights
/// that will be quantized: NaN would become a number in 4 bits, and infinity a block without any other value. One
/// thread.
void check_finite(const TensorView& weight, std::string_view name);

}  // namespace qshard
