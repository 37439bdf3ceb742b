#include "core/tensor/codebook.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"

namespace qshard {
namespace {

// torch.linspace in float32: the first half counts up from `start`, the second down from `end`.
std::vector<float> linspace(float start, float end, int count) {
  const float step = (end - start) / static_cast<float>(count - 1);
  std::vector<float> points(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    points[static_cast<std::size_t>(i)] = i < count / 2 ? std::fma(step, static_cast<float>(i), start)
                                                        : std::fma(-step, static_cast<float>(count - 1 - i), end);
  }
  return points;
}

// Each power of ten holds twice as many values as the one below it; without a sign, twice as many again.
std::array<float, 256> make_dynamic_map(bool is_signed) {
  std::vector<float> values{0.0F, 1.0F};
  for (int i = 0; i < 7; ++i) {
    const std::vector<float> boundaries = linspace(0.1F, 1.0F, (is_signed ? 1 << i : 2 << i) + 1);
    const auto scale = static_cast<float>(std::pow(10.0, i - 6));
    for (std::size_t j = 0; j + 1 < boundaries.size(); ++j) {
      const float mean = (boundaries[j] + boundaries[j + 1]) / 2.0F;
      values.push_back(scale * mean);
      if (is_signed) values.push_back(-(scale * mean));
    }
  }
  std::sort(values.begin(), values.end());
  std::array<float, 256> map{};
  std::copy(values.begin(), values.end(), map.begin());
  return map;
}

}  // namespace

std::string_view to_string(QuantType type) {
  return type == QuantType::nf4 ? "nf4" : "fp4";
}

QuantType parse_quant_type(std::string_view name, std::string_view where) {
  if (name == "nf4") return QuantType::nf4;
  if (name == "fp4") return QuantType::fp4;
  fail_input("{}: unknown quantization type \"{}\"; known: nf4, fp4", where, name);
}

const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map(true);
  return map;
}

const std::array<float, 256>& unsigned_dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map(false);
  return map;
}

}  // namespace qshard
