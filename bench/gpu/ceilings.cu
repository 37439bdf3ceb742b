#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "bench/gpu/ceilings.h"
#include "bench/gpu/device.h"
#include "bench/gpu/device_check.h"
#include "bench/gpu/measure.h"
#include "bench/providers/dense_product.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {
namespace {

constexpr std::size_t kBytes = std::size_t{1} << 30;
constexpr int kThreads = 512;
constexpr int kPerThread = 4;  // 16-byte accesses in flight a thread
constexpr int kProductRuns = 9;
constexpr unsigned kBlocks = kBytes / (16 * kThreads * kPerThread);

__global__ void copy_kernel(const uint4* from, uint4* to) {
  const std::size_t first = blockIdx.x * static_cast<std::size_t>(kThreads * kPerThread) + threadIdx.x;
  uint4 values[kPerThread];
  for (int i = 0; i < kPerThread; ++i) values[i] = __ldcs(from + first + i * kThreads);
  for (int i = 0; i < kPerThread; ++i) __stcs(to + first + i * kThreads, values[i]);
}

__global__ void read_kernel(const uint4* from, unsigned* never) {
  const std::size_t first = blockIdx.x * static_cast<std::size_t>(kThreads * kPerThread) + threadIdx.x;
  unsigned sum = 0;
  for (int i = 0; i < kPerThread; ++i) {
    const uint4 value = __ldcs(from + first + i * kThreads);
    sum += value.x ^ value.y ^ value.z ^ value.w;
  }
  if (sum == 0x12345678U && threadIdx.x == kThreads) *never = sum;  // keeps the loads; no thread has this index
}

__global__ void write_kernel(uint4* to) {
  const std::size_t first = blockIdx.x * static_cast<std::size_t>(kThreads * kPerThread) + threadIdx.x;
  for (int i = 0; i < kPerThread; ++i) __stcs(to + first + i * kThreads, make_uint4(first, i, 1, 2));
}

double median_seconds(int repetitions, int calls, const Clocks& clocks, ClockSample* sample,
                      const std::function<void()>& call) {
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    const Sample timed = time_calls(calls, nullptr, clocks, [&call](int) { call(); });
    seconds.push_back(timed.seconds);
    if (sample != nullptr) *sample = timed.clocks;
  }
  std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
  return seconds[repetitions / 2];
}

double measure_product(const Clocks& clocks, ClockSample* sample) {
  constexpr std::int64_t kSize = 8192;
  constexpr std::size_t kElements = kSize * kSize;
  const DeviceBuffer a(2 * kElements);
  const DeviceBuffer b(2 * kElements);
  const DeviceBuffer c(2 * kElements);
  fill_random_bf16(a.as(), kElements, 1);
  fill_random_bf16(b.as(), kElements, 2);
  const DenseProduct product(kSize, kSize, kSize, QSHARD_BF16, false);
  const auto call = [&] { product.run(a.as(), b.as(), c.as(), nullptr); };
  median_seconds(1, 3, clocks, nullptr, call);
  // Short runs with the power limit not yet felt, as the rows' own batches are: their best is the ceiling.
  double best = 0;
  for (int i = 0; i < kProductRuns; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    best = std::max(best, 2.0 * kSize * kSize * kSize / median_seconds(1, 8, clocks, sample, call));
  }
  return best;
}

}  // namespace

double Ceilings::memory() const {
  return std::max({copy, read, write});
}

Ceilings measure_ceilings(const Clocks& clocks, bool with_product) {
  Ceilings ceilings;
  {
    const DeviceBuffer a(kBytes);
    const DeviceBuffer b(kBytes);
    fill_random_bf16(a.as(), kBytes / 2, 3);
    const auto rate = [&clocks](double bytes, const std::function<void()>& call) {
      median_seconds(1, 3, clocks, nullptr, call);
      const double seconds = median_seconds(9, 5, clocks, nullptr, call);
      QSHARD_CUDA_CHECK(cudaGetLastError());
      return bytes / seconds;
    };
    const auto size = static_cast<double>(kBytes);
    const double by_kernel = rate(2 * size, [&] { copy_kernel<<<kBlocks, kThreads>>>(a.as<uint4>(), b.as<uint4>()); });
    const double by_call = rate(2 * size, [&] {
      QSHARD_CUDA_CHECK(cudaMemcpyAsync(b.as(), a.as(), kBytes, cudaMemcpyDeviceToDevice, nullptr));
    });
    ceilings.copy = std::max(by_kernel, by_call);
    ceilings.read = rate(size, [&] { read_kernel<<<kBlocks, kThreads>>>(a.as<uint4>(), b.as<unsigned>()); });
    const double write_kernel_rate = rate(size, [&] { write_kernel<<<kBlocks, kThreads>>>(b.as<uint4>()); });
    const double memset_rate = rate(size, [&] { QSHARD_CUDA_CHECK(cudaMemsetAsync(b.as(), 1, kBytes, nullptr)); });
    ceilings.write = std::max(write_kernel_rate, memset_rate);
  }
  if (with_product) ceilings.product = measure_product(clocks, &ceilings.clocks);
  return ceilings;
}

}  // namespace qshard::bench
