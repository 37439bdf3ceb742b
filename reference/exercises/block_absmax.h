#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

/// Exercise 2 (10 minutes; read reference/block_absmax.h). The scale of each block: the largest magnitude of
/// `blocksize` consecutive elements. The last block may be shorter.
inline std::vector<float> block_absmax(std::span<const float> weight, std::size_t blocksize) {
  // The gap: replace this line.
  return std::vector<float>(weight.size() / blocksize);
}
