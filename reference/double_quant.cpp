#include "reference/double_quant.h"

#include <numeric>

#include "reference/block_absmax.h"
#include "reference/flush_to_zero.h"
#include "reference/nearest_code.h"

namespace qshard::reference {
namespace {

// Summed in double, so that the only rounding that matters is the last one.
float mean(std::span<const float> values) {
  return static_cast<float>(std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()));
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
