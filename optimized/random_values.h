#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// values[i] = mean + deviation * z_i rounded to `dtype`, with z_i nearly normal (the sum of four uniform 16-bit
/// numbers), a function of (seed, i) alone. For measurements on weights that nobody trained. One launch on `stream`.
/// Throws Error(bad_input) for a dtype that is not floating, a negative count or a null or unaligned pointer.
void random_values(std::uint64_t seed, double mean, double deviation, std::int64_t count, DType dtype, void* values,
                   cudaStream_t stream);

}  // namespace qshard::optimized
