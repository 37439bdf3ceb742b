#include "core/model/lora_init.h"

#include <cmath>

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

}  // namespace

std::vector<float> lora_a_values(std::uint64_t seed, const std::string& name, const Shape& shape) {
  const std::uint64_t stream = fnv_hash(name);
  const float bound = 1.0F / std::sqrt(static_cast<float>(shape[1]));
  std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto words = philox4x32({low(i / 4), high(i / 4), low(stream), high(stream)}, {low(seed), high(seed)});
    const auto unit = static_cast<float>(words[i % 4] >> 8) * 0x1p-24F;  // [0, 1)
    values[i] = (2.0F * unit - 1.0F) * bound;
  }
  return values;
}

}  // namespace qshard
