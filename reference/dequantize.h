#pragma once

#include "core/weight4bit.h"

namespace qshard::reference {

/// Rebuilds the weight from its codes and scales: codebook[code] * absmax in float (subnormal products flushed to
/// zero), rounded once to `dtype` (f32, f16 or bf16). Equal to the bit to bitsandbytes' CUDA dequantize_4bit. `out`
/// must have room for the weight's elements in `dtype`. Deterministic on any number of threads. Throws Error(bad_input)
/// where the sizes do not fit each other.
void dequantize(const Weight4bitView& weight, DType dtype, std::span<std::byte> out);

/// The same into a new tensor of the weight's shape.
Tensor dequantize(const Weight4bitView& weight, DType dtype);

}  // namespace qshard::reference
