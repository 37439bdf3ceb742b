#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

/// Exercise 2 (10 minutes; read reference/block_absmax.h). The scale of each block: the largest magnitude of
/// `blocksize` consecutive elements. The last block may be shorter.
inline std::vector<float> block_absmax(std::span<const float> weight, std::size_t blocksize) {
  std::vector<float> absmax((weight.size() + blocksize - 1) / blocksize, 0.0F);
  for (std::size_t i = 0; i < weight.size(); ++i) {
    absmax[i / blocksize] = std::max(absmax[i / blocksize], std::abs(weight[i]));
  }
  return absmax;
}
