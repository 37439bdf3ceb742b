#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace qshard::bench {

/// A tensor of random values, near normal (the sum of four uniform 16-bit numbers), mean 0, the given standard
/// deviation; element i depends on `seed` and i alone, so the same on any number of threads.
Tensor random_tensor(DType dtype, const Shape& shape, double deviation, std::uint64_t seed);

}  // namespace qshard::bench
