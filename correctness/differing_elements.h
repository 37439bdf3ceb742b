#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/tensor/float16.h"
#include "core/tensor/tensor.h"

namespace qshard::test {

/// Elements of two floating tensors that differ in a bit, two NaN counting as equal.
inline std::size_t differing_elements(const TensorView& a, const TensorView& b) {
  if (a.bytes.size() != b.bytes.size()) return std::max(a.bytes.size(), b.bytes.size());
  const std::vector<float> x = to_floats(a);
  const std::vector<float> y = to_floats(b);
  std::size_t count = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const bool same = std::bit_cast<std::uint32_t>(x[i]) == std::bit_cast<std::uint32_t>(y[i]) ||
                      (std::isnan(x[i]) && std::isnan(y[i]));
    if (!same) ++count;
  }
  return count;
}

}  // namespace qshard::test
