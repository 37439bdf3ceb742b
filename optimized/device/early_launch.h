#pragma once

#include <cstddef>

#include <cuda_runtime.h>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

/// Launches a kernel that may begin while earlier kernels of the stream run, as soon as the one before it lets it: it
/// waits for all of them by itself (grid_dependency_synchronize()) before it touches what any of them reads or writes,
/// and loads that by plain loads, for those of constant data (__ldg(), const __restrict__) have no order with the wait.
/// What the kernel before has waited for before it let this one begin is there from the start. GPUs before Hopper
/// launch it as any other.
template <typename... Parameters, typename... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
                  Arguments... arguments) {
  int device = 0;
  int major = 0;
  QSHARD_CUDA_CHECK(cudaGetDevice(&device));
  QSHARD_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = major >= 9 ? 1 : 0;
  QSHARD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace qshard::optimized
