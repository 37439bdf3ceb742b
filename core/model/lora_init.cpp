#include "core/model/lora_init.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/base/fnv_hash.h"
#include "core/tensor/philox.h"

namespace qshard {
namespace {

std::uint32_t low(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}

std::uint32_t high(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32);
}

/// Four values of a uniform distribution over [-bound, bound).
std::array<float, 4> uniform(const std::array<std::uint32_t, 4>& words, float bound) {
  std::array<float, 4> values{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto unit = static_cast<float>(words[i] >> 8) * 0x1p-24F;  // [0, 1)
    values[i] = (2.0F * unit - 1.0F) * bound;
  }
  return values;
}

/// Four values of a normal distribution around 0, two from each pair of words (Box and Muller, 1958).
std::array<float, 4> normal(const std::array<std::uint32_t, 4>& words, double deviation) {
  std::array<float, 4> values{};
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const double radius = std::sqrt(-2.0 * std::log((words[i] + 1.0) * 0x1p-32));  // of a number in (0, 1]
    const double angle = 2.0 * std::numbers::pi * (words[i + 1] * 0x1p-32);
    values[i] = static_cast<float>(deviation * radius * std::cos(angle));
    values[i + 1] = static_cast<float>(deviation * radius * std::sin(angle));
  }
  return values;
}

}  // namespace

std::vector<float> lora_a_values(LoraStart start, std::uint64_t seed, const std::string& name, const Shape& shape) {
  const std::uint64_t stream = fnv_hash(name);
  const float bound = 1.0F / std::sqrt(static_cast<float>(shape[1]));
  const double deviation = 1.0 / static_cast<double>(shape[0]);
  std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const auto words = philox4x32({low(i / 4), high(i / 4), low(stream), high(stream)}, {low(seed), high(seed)});
    const auto four = start == LoraStart::gaussian ? normal(words, deviation) : uniform(words, bound);
    std::copy_n(four.begin(), std::min<std::size_t>(4, values.size() - i), values.begin() + i);
  }
  return values;
}

}  // namespace qshard
