#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Exercise 4 (10 minutes; read reference/dequantize.h). Element i of a weight: the codebook's value of its code times
/// the scale of its block. The codes are packed as in exercise 3.
inline float dequantize_one(std::span<const std::uint8_t> packed, std::span<const float> absmax,
                            std::span<const float, 16> codebook, std::size_t blocksize, std::size_t i) {
  // The gap: replace this line.
  return packed.size() + absmax.size() + codebook.size() + blocksize + i == 0 ? 0.0F : -1.0F;
}
