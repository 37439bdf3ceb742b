#include "reference/merge_lora.h"

#include <array>
#include <cmath>

#include "core/base/error.h"

namespace qshard::reference {
namespace {

void check_fits(const TensorView& weight, const TensorView& a, const TensorView& b, const TensorView& magnitude) {
  const bool fits = weight.shape.size() == 2 && a.shape.size() == 2 && b.shape.size() == 2 &&
                    b.shape[0] == weight.shape[0] && a.shape[1] == weight.shape[1] && b.shape[1] == a.shape[0];
  if (!fits) {
    fail_input("A {} and B {} do not fit a weight of shape {}", to_string(a.shape), to_string(b.shape),
               to_string(weight.shape));
  }
  if (!magnitude.bytes.empty() && magnitude.shape != Shape{weight.shape[0]}) {
    fail_input("a magnitude of shape {} does not fit a weight of shape {}", to_string(magnitude.shape),
               to_string(weight.shape));
  }
}

/// One row of a weight with the adapter's part: row += scaling * b A, for b [r] and A [r, in].
void add_delta(std::span<float> row, std::span<const float> b, std::span<const float> a, float scaling,
               std::vector<float>& delta) {
  delta.assign(row.size(), 0.0F);
  for (std::size_t k = 0; k < b.size(); ++k) {
    const auto of_k = a.subspan(k * row.size(), row.size());
    for (std::size_t j = 0; j < row.size(); ++j) delta[j] = std::fma(b[k], of_k[j], delta[j]);
  }
  for (float& value : delta) value *= scaling;
  for (std::size_t j = 0; j < row.size(); ++j) row[j] += delta[j];
}

/// PyTorch's order on a CPU: eight sums, element i going to sum i mod 8, then the eight from the first to the last.
float length(std::span<const float> row) {
  std::array<float, 8> sums{};
  for (std::size_t i = 0; i < row.size(); ++i) sums[i % sums.size()] += row[i] * row[i];
  float sum = 0;
  for (const float part : sums) sum += part;
  return std::sqrt(sum);
}

}  // namespace

Tensor merge_lora(const TensorView& weight, const TensorView& a, const TensorView& b, double scaling,
                  const TensorView& magnitude) {
  check_fits(weight, a, b, magnitude);
  const std::vector<float> a_values = to_floats(a);
  const std::vector<float> b_values = to_floats(b);
  const std::vector<float> lengths = magnitude.bytes.empty() ? std::vector<float>() : to_floats(magnitude);
  const auto in = static_cast<std::size_t>(weight.shape[1]);
  const auto r = static_cast<std::size_t>(a.shape[0]);
  std::vector<float> merged = to_floats(weight);
  std::vector<float> delta;
  for (std::size_t i = 0; i < static_cast<std::size_t>(weight.shape[0]); ++i) {
    const std::span<float> row = std::span(merged).subspan(i * in, in);
    add_delta(row, std::span(b_values).subspan(i * r, r), a_values, static_cast<float>(scaling), delta);
    if (lengths.empty()) continue;
    const float factor = lengths[i] / length(row);
    for (float& value : row) value *= factor;
  }
  return from_floats(merged, weight.dtype, weight.shape);
}

Tensor merge_bias(const TensorView& bias, const TensorView& added, double scaling) {
  if (bias.shape.size() != 1 || bias.shape != added.shape) {
    fail_input("an added bias of shape {} does not fit a bias of shape {}", to_string(added.shape),
               to_string(bias.shape));
  }
  std::vector<float> merged = to_floats(bias);
  const std::vector<float> values = to_floats(added);
  for (std::size_t i = 0; i < merged.size(); ++i) {
    const float more = values[i] * static_cast<float>(scaling);
    merged[i] += more;
  }
  return from_floats(merged, bias.dtype, bias.shape);
}

}  // namespace qshard::reference
