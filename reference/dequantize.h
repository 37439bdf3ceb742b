#pragma once

#include <cstddef>
#include <span>

#include "core/tensor/weight4bit.h"

namespace qshard::reference {

/// Rebuilds the weight from its codes and scales: codebook[code] * absmax in float (subnormal products flushed to
/// zero; NaN is 0x7FFFFFFF), rounded once to `dtype` (f32, f16 or bf16). Equal to the bit to bitsandbytes' CUDA
/// dequantize_4bit. `out` must be exactly the weight's elements in `dtype`, of any alignment. Reads half a byte and
/// writes size_of(dtype) bytes an element. Deterministic on any number of threads. Throws Error(bad_input) where the
/// sizes do not fit each other.
void dequantize(const Weight4bitView& weight, DType dtype, std::span<std::byte> out);

/// The same into a new tensor of the weight's shape.
Tensor dequantize(const Weight4bitView& weight, DType dtype);

/// The values of dequantize(weight, rounding), held as float (exact): what a product in compute_dtype `rounding` works
/// on. out.size() must be the weight's number of elements. The same determinism and errors.
void dequantize_rounded(const Weight4bitView& weight, DType rounding, std::span<float> out);

}  // namespace qshard::reference
