#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

namespace qshard::bench {

/// What bitsandbytes leaves to PyTorch around its own kernels for nested absmax; a plain kernel each, as PyTorch has.

/// values[i] += *offset.
void add_offset(float* values, int count, const float* offset, cudaStream_t stream);

/// *mean = the mean of values; values[i] -= *mean. workspace: mean_workspace_bytes(count).
void subtract_mean(float* values, int count, float* mean, void* workspace, cudaStream_t stream);
std::size_t mean_workspace_bytes(int count);

}  // namespace qshard::bench
