#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// Throws Error with the statement, its place and the driver's own words unless `status` is cudaSuccess; use it through
/// QSHARD_CUDA_CHECK. Out of memory is Error(out_of_resources), a device that cannot run this build's code
/// Error(bad_input), anything else Error(rank_failed).
void check_cuda(cudaError_t status, const char* statement, const char* file, int line);

/// Throws Error(bad_input), naming `what`, when `pointer` is null or not a multiple of `alignment` bytes.
void check_pointer(const void* pointer, std::size_t alignment, const char* what);

}  // namespace qshard::optimized

#define QSHARD_CUDA_CHECK(statement) ::qshard::optimized::check_cuda((statement), #statement, __FILE__, __LINE__)
