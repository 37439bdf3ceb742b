#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// `rows` rows of `columns` elements, `stride` elements from one row to the next.
struct RowsShape {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;
  DType dtype = DType::bf16;  // f32, f16 or bf16
};

/// The contracts of all three: pointers aligned to their element, 16 bytes at once where pointers and sizes allow; sums
/// in float, rounded once to the dtype; one launch on `stream`, nothing allocated, nothing synchronized; deterministic:
/// elementwise. Throws Error(bad_input) for bad sizes, dtypes or pointers; Error(rank_failed) when the launch fails.

/// values[i] = round(values[i] + addend[i]) for i < count.
void add(std::int64_t count, DType dtype, const void* addend, void* values, cudaStream_t stream);

/// values[row][column] = round(values[row][column] + bias[column]).
void add_bias(const RowsShape& shape, const void* bias, void* values, cudaStream_t stream);

/// to[row][column] = from[row][column]; both have the stride.
void copy_rows(const RowsShape& shape, const void* from, void* to, cudaStream_t stream);

}  // namespace qshard::optimized
