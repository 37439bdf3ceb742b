#pragma once

#include <optional>

#include "core/model/quantization_options.h"
#include "core/tensor/weight4bit.h"
#include "reference/reciprocal.h"

namespace qshard::reference {

/// Where two implementations may differ in the last bit; a run has the defaults.
struct QuantizationArithmetic {
  Reciprocal reciprocal = Reciprocal::gpu;
  std::optional<float> offset = {};  // nested: given, or computed as the mean of absmax
};

/// Quantizes a floating tensor (f32, f16, bf16; any rank, flattened row-major) to 4 bits, equal to the bit to what
/// bitsandbytes' CUDA kernels store. Per block of `blocksize` elements: absmax = max |x|; code = the codebook interval
/// that x * reciprocal(absmax) falls into; two codes a byte, the first in the high nibble. Subnormal operands and
/// products count as zero, NaN is ignored by absmax and gets code 0. With double_quant absmax is quantized in turn.
/// Throws Error(bad_input), naming `name`, for an empty or non-floating tensor, an unsupported block size, or a size
/// that options.quant_storage cannot hold whole. Deterministic on any number of threads.
Weight4bit quantize(const TensorView& weight, const QuantizationOptions& options, std::string_view name,
                    const QuantizationArithmetic& arithmetic = {});

/// The same of a model's weight. NaN would become a number in its 4 bits, and infinity a block without any other value:
/// throws Error(bad_input), naming the tensor, also where an element is not finite.
Weight4bit quantize_weight(const TensorView& weight, const QuantizationOptions& options, std::string_view name);

}  // namespace qshard::reference
