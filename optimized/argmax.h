#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// What argmax() gives for a row with a value that is NaN or infinite.
inline constexpr std::int32_t kNotFinite = -1;

/// out[r] = the index of the largest of values[r][0 ... count - 1], the first of equal ones; kNotFinite where one is
/// NaN or infinite. values: [rows, count] contiguous, of f32, f16 or bf16; out: [rows]. The choice of a greedy Sampler.
/// Pointers are device memory, aligned to their element. One launch on `stream`, which may begin while the earlier
/// kernel ends; none for 0 rows; nothing is allocated and nothing synchronized. Deterministic. Throws Error(bad_input)
/// for bad sizes, dtypes or pointers; Error(rank_failed) when the launch fails.
void argmax(std::int64_t rows, std::int64_t count, DType dtype, const void* values, std::int32_t* out,
            cudaStream_t stream);

}  // namespace qshard::optimized
