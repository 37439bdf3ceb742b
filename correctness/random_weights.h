#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

namespace qshard::test {

/// Ways to fill a weight with random values.
enum class Fill : std::uint8_t {
  normal,         // like a language model's weights
  heavy_tailed,   // magnitudes over many orders
  any_bits,       // every bit pattern alike: subnormals, infinities and NaN among them
  mostly_zero,    // blocks of zeros and a few values
  near_overflow,  // around the largest magnitudes, where reciprocals flush to zero
};

inline constexpr Fill kFills[] = {Fill::normal, Fill::heavy_tailed, Fill::any_bits, Fill::mostly_zero,
                                  Fill::near_overflow};

inline std::vector<float> random_values(Fill fill, std::size_t count, std::mt19937_64& generator) {
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> values(count);
  for (float& value : values) {
    switch (fill) {
      case Fill::normal:
        value = 0.02F * normal(generator);
        break;
      case Fill::heavy_tailed:
        value = std::ldexp(uniform(generator), static_cast<int>(generator() % 60) - 30);
        break;
      case Fill::any_bits:
        value = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
        break;
      case Fill::mostly_zero:
        value = generator() % 97 == 0 ? normal(generator) : 0.0F;
        break;
      case Fill::near_overflow:
        value = std::ldexp(uniform(generator), 127);
        break;
    }
  }
  return values;
}

}  // namespace qshard::test
