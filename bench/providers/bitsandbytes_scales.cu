#include <cub/device/device_reduce.cuh>

#include "bench/providers/bitsandbytes_scales.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {
namespace {

__global__ void add_kernel(float* values, int count, const float* offset) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) values[i] += *offset;
}

__global__ void subtract_sum_kernel(float* values, int count, const float* sum, float* mean) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const float offset = *sum / static_cast<float>(count);
  if (i == 0) *mean = offset;
  if (i < count) values[i] -= offset;
}

constexpr int kThreads = 256;

int grid(int count) {
  return (count + kThreads - 1) / kThreads;
}

}  // namespace

void add_offset(float* values, int count, const float* offset, cudaStream_t stream) {
  add_kernel<<<grid(count), kThreads, 0, stream>>>(values, count, offset);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

std::size_t mean_workspace_bytes(int count) {
  std::size_t bytes = 0;
  QSHARD_CUDA_CHECK(
      cub::DeviceReduce::Sum(nullptr, bytes, static_cast<float*>(nullptr), static_cast<float*>(nullptr), count));
  return bytes + 256;
}

void subtract_mean(float* values, int count, float* mean, void* workspace, cudaStream_t stream) {
  std::size_t bytes = mean_workspace_bytes(count) - 256;
  auto* sum = static_cast<float*>(workspace);
  QSHARD_CUDA_CHECK(cub::DeviceReduce::Sum(static_cast<char*>(workspace) + 256, bytes, values, sum, count, stream));
  subtract_sum_kernel<<<grid(count), kThreads, 0, stream>>>(values, count, sum, mean);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace qshard::bench
