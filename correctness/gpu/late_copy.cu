#include <cstdint>

#include "correctness/gpu/late_copy.h"
#include "optimized/device/early_launch.h"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::test {

namespace {

constexpr int kBlocks = 4;
constexpr int kThreads = 1024;
constexpr long long kDelay = 200'000;  // clock cycles: 100 us at 2 GHz

__global__ void __launch_bounds__(kThreads)
    copy_kernel(const uint4* from, uint4* to, std::size_t count, bool waits, long long delay) {
  optimized::trigger_programmatic_launch_completion();
  if (waits) optimized::grid_dependency_synchronize();
  const long long begin = clock64();
  while (clock64() - begin < delay) {
  }
  for (std::size_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += kBlocks * kThreads) to[i] = from[i];
}

}  // namespace

void launch_copy(const void* from, void* to, std::size_t bytes, CopyTime time, cudaStream_t stream) {
  optimized::launch_early(copy_kernel, dim3(kBlocks), kThreads, 0, stream, static_cast<const uint4*>(from),
                          static_cast<uint4*>(to), bytes / sizeof(uint4), time != CopyTime::too_early,
                          time == CopyTime::late ? kDelay : 0);
}

}  // namespace qshard::test
