#include "core/tensor/weight4bit.h"
#include "optimized/device/early_launch.h"
#include "optimized/linear4bit/cluster/clear_arrivals.h"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized::cluster {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) clear_arrivals_kernel(int* arrivals, int count) {
  begin_early_kernel();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < count) arrivals[i] = 0;
}

}  // namespace

void clear_arrivals(int* arrivals, std::size_t count, cudaStream_t stream) {
  if (count == 0) return;
  const auto all = static_cast<int>(count);
  launch_early(clear_arrivals_kernel, dim3(static_cast<unsigned>(block_count(all, kThreads))), kThreads, 0, stream,
               arrivals, all);
}

}  // namespace qshard::optimized::cluster
