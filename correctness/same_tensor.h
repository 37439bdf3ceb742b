#pragma once

#include <algorithm>

#include "core/tensor/tensor.h"

namespace qshard {

/// Whether dtype, shape and every byte are the same.
inline bool same_tensor(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

}  // namespace qshard
