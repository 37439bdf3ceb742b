#include "optimized/attention/cudnn/statistics_by_row.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

/// One element a thread, in the order of by_row.
template <bool kGather>
__global__ void move_statistics(StatisticsShape shape, const float* from, float* to) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= shape.rows * shape.heads * shape.length) return;
  const std::int64_t position = i % shape.length;
  const std::int64_t head = i / shape.length % shape.heads;
  const std::int64_t row = i / shape.length / shape.heads;
  const std::int64_t in_lse = (head * shape.rows + row) * shape.length + position;
  if constexpr (kGather) {
    to[i] = from[in_lse];
  } else {
    to[in_lse] = from[i];
  }
}

template <bool kGather>
void launch(const StatisticsShape& shape, const float* from, float* to, cudaStream_t stream) {
  const std::int64_t elements = shape.rows * shape.heads * shape.length;
  move_statistics<kGather>
      <<<static_cast<unsigned>((elements + kThreads - 1) / kThreads), kThreads, 0, stream>>>(shape, from, to);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void gather_statistics(const StatisticsShape& shape, const float* lse, float* by_row, cudaStream_t stream) {
  launch<true>(shape, lse, by_row, stream);
}

void scatter_statistics(const StatisticsShape& shape, const float* by_row, float* lse, cudaStream_t stream) {
  launch<false>(shape, by_row, lse, stream);
}

}  // namespace qshard::optimized
