#include "core/tensor/weight4bit.h"
#include "optimized/device/early_launch.h"
#include "optimized/linear4bit/many_rows/clear_counts.h"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized::many_rows {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) clear_counts_kernel(int* counts, int count) {
  begin_early_kernel();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < count) counts[i] = 0;
}

}  // namespace

void clear_counts(void* counts, std::size_t count, cudaStream_t stream) {
  if (count == 0) return;
  const auto all = static_cast<int>(count);
  launch_early(clear_counts_kernel, dim3(static_cast<unsigned>(block_count(all, kThreads))), kThreads, 0, stream,
               static_cast<int*>(counts), all);
}

}  // namespace qshard::optimized::many_rows
