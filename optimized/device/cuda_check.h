#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Throws Error with the statement, its place and the driver's own words unless `status` is cudaSuccess; use it through
/// QSHARD_CUDA_CHECK. Out of memory is Error(out_of_resources), a device that cannot run this build's code
/// Error(bad_input), anything else Error(rank_failed).
void check_cuda(cudaError_t status, const char* statement, const char* file, int line);

/// Asks the current device for an attribute. Throws as check_cuda().
int device_attribute(cudaDeviceAttr attribute);

/// Throws Error(bad_input), naming `what`, when `pointer` is null or not a multiple of `alignment` bytes.
void check_pointer(const void* pointer, std::size_t alignment, const char* what);

/// Throws Error(bad_input), naming `what`, unless `dtype` is f32, f16 or bf16.
void check_floating(DType dtype, const char* what);

/// Throws Error(bad_input) unless is_supported_blocksize(blocksize).
void check_blocksize(std::int64_t blocksize);

/// Throws Error(bad_input), naming `what`, when `value` is less than `least`.
void check_at_least(std::int64_t value, std::int64_t least, const char* what);

/// Throws Error(bad_input), naming `what`, when `value` is more than `most`.
void check_at_most(std::int64_t value, std::int64_t most, const char* what);

/// Throws Error(bad_input), naming `what`, when `value` is not a multiple of `factor`.
void check_multiple(std::int64_t value, std::int64_t factor, const char* what);

}  // namespace qshard::optimized

#define QSHARD_CUDA_CHECK(statement) ::qshard::optimized::check_cuda((statement), #statement, __FILE__, __LINE__)
