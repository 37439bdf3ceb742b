#include "optimized/device/device_buffer.h"

#include <utility>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

/// Copies from pageable memory, copies within the device and cudaMemset() may return before they are done, and a
/// non-blocking stream does not wait for them.
void finish_default_stream() {
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

}  // namespace

void upload(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  QSHARD_CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
  finish_default_stream();
}

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
  optimized::upload(memory_, host, bytes);
}

void DeviceBuffer::download(void* host, std::size_t bytes) const {
  if (bytes > 0) QSHARD_CUDA_CHECK(cudaMemcpy(host, memory_, bytes, cudaMemcpyDeviceToHost));
}

void DeviceBuffer::copy_from(const DeviceBuffer& other) {
  QSHARD_CUDA_CHECK(cudaMemcpy(memory_, other.memory_, bytes_, cudaMemcpyDeviceToDevice));
  finish_default_stream();
}

void DeviceBuffer::fill(int byte) {
  if (bytes_ == 0) return;
  QSHARD_CUDA_CHECK(cudaMemset(memory_, byte, bytes_));
  finish_default_stream();
}

}  // namespace qshard::optimized
