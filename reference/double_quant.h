#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "core/tensor/weight4bit.h"
#include "reference/reciprocal.h"

namespace qshard::reference {

/// Nested (double) quantization of a weight's absmax: codes[i] is the index in `map` nearest to
/// (absmax[i] - offset) / nested_absmax[i / 256], found by bitsandbytes' CUDA search.
struct NestedAbsmax {
  std::vector<std::uint8_t> codes;
  std::vector<float> nested_absmax;  // one a block of 256
  float offset = 0.0F;
};

/// offset: the one given, else the mean of absmax. torch.mean's order of summation is not reproducible, so a computed
/// offset may differ from bitsandbytes' in its last bits; a given one makes the result equal to the bit.
NestedAbsmax nest_absmax(std::span<const float> absmax, const std::array<float, 256>& map, std::optional<float> offset,
                         Reciprocal kind);

/// absmax of every block of `weight`: as stored, or nested: map[code] * nested_absmax (rounded), then + offset
/// (rounded), the order of bitsandbytes' dequantize_4bit. One float a block.
std::vector<float> decode_absmax(const Weight4bitView& weight);

}  // namespace qshard::reference
