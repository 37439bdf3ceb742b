#include "optimized/device/device_buffer.h"

#include <utility>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

DeviceBuffer::DeviceBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes > 0) QSHARD_CUDA_CHECK(cudaMalloc(&memory_, bytes));
}

DeviceBuffer::~DeviceBuffer() {
  cudaFree(memory_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void DeviceBuffer::upload(const void* host, std::size_t bytes) {
  if (bytes > 0) QSHARD_CUDA_CHECK(cudaMemcpy(memory_, host, bytes, cudaMemcpyHostToDevice));
}

void DeviceBuffer::download(void* host, std::size_t bytes) const {
  if (bytes > 0) QSHARD_CUDA_CHECK(cudaMemcpy(host, memory_, bytes, cudaMemcpyDeviceToHost));
}

void DeviceBuffer::copy_from(const DeviceBuffer& other) {
  QSHARD_CUDA_CHECK(cudaMemcpy(memory_, other.memory_, bytes_, cudaMemcpyDeviceToDevice));
}

void DeviceBuffer::fill(int byte) {
  if (bytes_ > 0) QSHARD_CUDA_CHECK(cudaMemset(memory_, byte, bytes_));
}

}  // namespace qshard::optimized
