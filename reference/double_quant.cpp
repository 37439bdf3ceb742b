#include "reference/double_quant.h"

#include <numeric>

#include "reference/block_absmax.h"
#include "reference/flush_to_zero.h"

namespace qshard::reference {
namespace {

// Summed in double, so that the only rounding that matters is the last one.
float mean(std::span<const float> values) {
  return static_cast<float>(std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()));
}

// bitsandbytes' search: seven halvings from the middle end at an even index; then x goes to that entry or to its
// neighbour on x's side, whichever is nearer. A tie stays on the even index; NaN ends at index 0.
std::uint8_t nearest_code(float x, const std::array<float, 256>& map) {
  std::size_t below = 0;
  std::size_t pivot = 127;
  std::size_t above = 255;
  for (std::size_t step = 64; step > 0; step /= 2) {
    if (x > map[pivot]) {
      below = pivot;
      pivot += step;
    } else {
      above = pivot;
      pivot -= step;
    }
  }
  if (x > map[pivot]) {
    const float midpoint = (map[above] + map[pivot]) * 0.5F;
    return static_cast<std::uint8_t>(x > midpoint ? above : pivot);
  }
  const float midpoint = (map[below] + map[pivot]) * 0.5F;
  return static_cast<std::uint8_t>(x < midpoint ? below : pivot);
}

}  // namespace

NestedAbsmax nest_absmax(std::span<const float> absmax, const std::array<float, 256>& map, std::optional<float> offset,
                         Reciprocal kind) {
  NestedAbsmax result;
  result.offset = offset ? *offset : mean(absmax);
  result.codes.reserve(absmax.size());
  std::vector<float> centred;
  for (std::size_t first = 0; first < absmax.size(); first += kNestedBlocksize) {
    const auto block = absmax.subspan(first, std::min<std::size_t>(kNestedBlocksize, absmax.size() - first));
    centred.clear();
    for (const float value : block) centred.push_back(value - result.offset);
    const float scale = block_absmax(centred, static_cast<int>(kNestedBlocksize));
    const float factor = reciprocal(scale, kind);
    result.nested_absmax.push_back(scale);
    for (const float value : centred) result.codes.push_back(nearest_code(multiply_flushed(value, factor), map));
  }
  return result;
}

std::vector<float> decode_absmax(const Weight4bitView& weight) {
  if (!weight.info->nested) return {weight.absmax.begin(), weight.absmax.end()};
  std::vector<float> absmax(weight.absmax_codes.size());
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    const float scale = weight.nested_absmax[i / kNestedBlocksize];
    absmax[i] = multiply_flushed(weight.info->nested_map[weight.absmax_codes[i]], scale) + weight.info->offset;
  }
  return absmax;
}

}  // namespace qshard::reference
