#include <algorithm>

#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/rank_sum.h"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

/// Sum over the ranks in element i, on top of what is in `out` where kAdd.
template <bool kAdd>
__global__ void __launch_bounds__(kThreads) add_ranks(RankArrays arrays, std::int64_t count, float* out) {
  begin_early_kernel();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    float sum = 0;
    for (int rank = 0; rank < arrays.ranks; ++rank) sum = __fadd_rn(sum, arrays.of_rank[rank][i]);
    out[i] = kAdd ? __fadd_rn(out[i], sum) : sum;
  }
}

__device__ float4 added(float4 a, float4 b) {
  return {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
}

template <bool kAdd>
__global__ void __launch_bounds__(kThreads) add_ranks_by_four(RankArrays arrays, std::int64_t count, float4* out) {
  begin_early_kernel();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    float4 sum{0, 0, 0, 0};
    for (int rank = 0; rank < arrays.ranks; ++rank) {
      sum = added(sum, reinterpret_cast<const float4*>(arrays.of_rank[rank])[i]);
    }
    out[i] = kAdd ? added(out[i], sum) : sum;
  }
}

bool in_fours(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(float4) == 0;
}

template <bool kAdd>
void sum_ranks(const RankArrays& arrays, std::int64_t count, float* out, cudaStream_t stream) {
  check_at_least(count, 0, "the number of elements of a sum over ranks");
  check_at_least(arrays.ranks, 1, "the number of ranks of a sum over ranks");
  check_pointer(out, sizeof(float), "the result of a sum over ranks");
  bool wide = in_fours(out) && count % 4 == 0;
  for (int rank = 0; rank < arrays.ranks; ++rank) {
    check_pointer(arrays.of_rank[rank], sizeof(float), "an operand of a sum over ranks");
    wide = wide && in_fours(arrays.of_rank[rank]);
  }
  if (count == 0) return;
  const std::int64_t items = wide ? count / 4 : count;
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((items + kThreads - 1) / kThreads, 4096));
  if (wide) {
    launch_early(add_ranks_by_four<kAdd>, dim3(blocks), kThreads, 0, stream, arrays, items,
                 reinterpret_cast<float4*>(out));
  } else {
    launch_early(add_ranks<kAdd>, dim3(blocks), kThreads, 0, stream, arrays, items, out);
  }
}

}  // namespace

void sum_in_rank_order(const RankArrays& arrays, std::int64_t count, float* out, cudaStream_t stream) {
  sum_ranks<false>(arrays, count, out, stream);
}

void add_sum_in_rank_order(const RankArrays& arrays, std::int64_t count, float* out, cudaStream_t stream) {
  sum_ranks<true>(arrays, count, out, stream);
}

}  // namespace qshard::optimized
