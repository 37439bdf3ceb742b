#include "optimized/device/pinned_buffer.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"

namespace qshard::optimized {

PinnedBuffer::PinnedBuffer(std::int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, static_cast<std::size_t>(bytes));
  if (status != cudaSuccess) {
    cudaGetLastError();
    fail(ExitCode::out_of_resources, "{} MiB of pinned host memory cannot be had: {}", bytes >> 20,
         cudaGetErrorString(status));
  }
  memory_ = static_cast<std::byte*>(memory);
}

PinnedBuffer::~PinnedBuffer() {
  cudaFreeHost(memory_);
}

}  // namespace qshard::optimized
