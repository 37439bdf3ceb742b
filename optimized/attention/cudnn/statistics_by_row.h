#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// Log-sum-exps of rows of one length, which cuDNN 9.19 reads and writes as [rows, heads, length] only.
struct StatisticsShape {
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t length;
};

/// lse [heads, rows * length] to by_row [rows, heads, length], and back.
void gather_statistics(const StatisticsShape& shape, const float* lse, float* by_row, cudaStream_t stream);
void scatter_statistics(const StatisticsShape& shape, const float* by_row, float* lse, cudaStream_t stream);

}  // namespace qshard::optimized
