#include <algorithm>
#include <cmath>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "optimized/device/cuda_check.h"
#include "optimized/random_values.h"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

/// The finalizer of splitmix64.
__device__ std::uint64_t mix(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ value >> 27) * 0x94D049BB133111EBULL;
  return value ^ value >> 31;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    fill_random(std::uint64_t seed, float mean, float scale, std::int64_t count, T* values) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    const std::uint64_t bits = mix(seed + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(i + 1));
    const int sum = static_cast<int>((bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48));
    values[i] = static_cast<T>(fmaf(scale, static_cast<float>(sum - 131070), mean));
  }
}

}  // namespace

void random_values(std::uint64_t seed, double mean, double deviation, std::int64_t count, DType dtype, void* values,
                   cudaStream_t stream) {
  check_floating(dtype, "the dtype of random values");
  check_at_least(count, 0, "the number of random values");
  check_pointer(values, size_of(dtype), "the memory of random values");
  if (count == 0) return;
  const auto scale = static_cast<float>(deviation / (65536.0 / std::sqrt(3.0)));  // of the sum of four uniforms
  const auto centre = static_cast<float>(mean);
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((count + kThreads - 1) / kThreads, 1 << 14));
  if (dtype == DType::bf16) {
    fill_random<<<blocks, kThreads, 0, stream>>>(seed, centre, scale, count, static_cast<__nv_bfloat16*>(values));
  } else if (dtype == DType::f16) {
    fill_random<<<blocks, kThreads, 0, stream>>>(seed, centre, scale, count, static_cast<__half*>(values));
  } else {
    fill_random<<<blocks, kThreads, 0, stream>>>(seed, centre, scale, count, static_cast<float*>(values));
  }
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace qshard::optimized
