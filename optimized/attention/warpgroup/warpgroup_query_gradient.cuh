#pragma once

#include "optimized/attention/warpgroup/query_work.cuh"

// dq: a thread block keeps 192 queries of one head, 64 a warpgroup, and walks along the keys that they see.
namespace qshard::optimized::warpgroup_attention {

inline constexpr int kQueryGroups = 3;
inline constexpr int kQueryStages = 3;
inline constexpr int kGradientQueries = kQueryGroups * kTileTokens;

/// Passing: k and v of 64 keys.
template <int kDim>
using QueryGradientMemory = Memory<kDim, kQueryGroups, 2, kQueryStages, 0>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, int kDim>
__device__ __forceinline__ void load_query_gradient(const AttentionTask<T>& task, const TensorMaps& maps,
                                                    const QueryGradientMemory<kDim>& memory,
                                                    const QueryWork& work) {
  const HeadRows<T> keys[2] = {{maps.k, task.k, task.kv_stride}, {maps.v, task.v, task.kv_stride}};
  const HeadRows<T> queries[2] = {{maps.q, task.q, task.q_stride}, {maps.dout, task.dout, task.o_stride}};
#pragma unroll 1
  for (int group = 0; group < kQueryGroups; ++group) {
    const int query = work.tile.first + group * kTileTokens;
    const int column = work.head * kDim;
    load_tiles<kDim>(queries, column, {memory.fixed(group, 0), memory.fixed(group, 1)},
                        work.tile.begin + query, work.tile.length - query, memory.fixed_full());
  }
  load_keys<kDim>(keys, memory, work);
}

/// One warpgroup's 64 queries.
template <typename T, int kDim>
class QueryGradientMultiplier {
 public:
  __device__ __forceinline__ QueryGradientMultiplier(const AttentionTask<T>& task,
                                                     const QueryGradientMemory<kDim>& memory,
                                                     const QueryWork& work, int group)
      : task_(task),
        memory_(memory),
        work_(work),
        group_(group),
        query_(work.tile.first + group * kTileTokens),
        present_(work.tile.length - query_),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4) {
    const std::int64_t at = static_cast<std::int64_t>(work.head) * task.tokens + work.tile.begin + query_ + row_;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool inside = row_ + 8 * half < present_;
      lse_log2_[half] = inside ? task.lse[at + 8 * half] * kLog2E : INFINITY;  // of what is not there p becomes 0
      delta_[half] = inside ? task.delta[at + 8 * half] : 0.0F;
    }
  }

  __device__ __forceinline__ void run() {
    mbarrier_wait(memory_.fixed_full(), 0);
    for (int key = work_.first_key; key < work_.keys.end; key += kTileTokens, ring_.advance()) {
      mbarrier_wait(memory_.full(ring_.stage), ring_.parity);
      if (present_ > 0 && any_sees(query_, kTileTokens, key, kTileTokens, task_.window)) {
        multiply(key);
      } else {
        release(memory_, ring_.stage);
      }
    }
    if (present_ <= 0) return;
    const std::int64_t token = work_.tile.begin + query_;
    TokenTile<kDim>{memory_.fixed(group_, 0)}.template store<T>(
        dq_, task_.scale, task_.dq + token * task_.q_stride + work_.head * kDim, task_.q_stride, present_);
  }

 private:
  __device__ __forceinline__ void multiply(int key) {
    const TokenTile<kDim> k{memory_.passing(ring_.stage, 0)};
    const TokenTile<kDim> v{memory_.passing(ring_.stage, 1)};
    float p[32];
    float ds[32];
    multiply_rows<T>(p, TokenTile<kDim>{memory_.fixed(group_, 0)}, k);
    multiply_rows<T>(ds, TokenTile<kDim>{memory_.fixed(group_, 1)}, v);
    wgmma_wait<1>(p);
    make_probabilities(key, p);
    wgmma_wait<0>(ds);
#pragma unroll
    for (int i = 0; i < 32; ++i) ds[i] = p[i] * (ds[i] - delta_[i / 2 % 2]);
    std::uint32_t gradients[4][4];
    round_operand<T>(ds, gradients);
    add_product<T, kDim>(dq_, gradients, k, begun_);
    begun_ = true;
    wgmma_wait<0>(dq_);
    release(memory_, ring_.stage);
  }

  /// exp(scale score - lse) in place of the scores.
  __device__ __forceinline__ void make_probabilities(int key, float (&p)[32]) const {
    const float exponent_scale = task_.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < 32; ++i) p[i] = exp2_ftz(fmaf(p[i], exponent_scale, -lse_log2_[i / 2 % 2]));
    hide_keys(p, query_, row_, key, task_.window, 0.0F);
  }

  const AttentionTask<T>& task_;
  const QueryGradientMemory<kDim>& memory_;
  const QueryWork& work_;
  int group_;
  int query_;
  int present_;
  int lane_;
  int row_;
  bool begun_ = false;
  Ring<kQueryStages> ring_;
  float lse_log2_[2];
  float delta_[2];
  float dq_[kDim / 2];
};

#endif

/// grid: (heads, tile_slots()), the last slots first: they have the most keys.
template <typename T, int kDim>
__global__ void __launch_bounds__(QueryGradientMemory<kDim>::kThreads, 1)
    warpgroup_query_gradient(const __grid_constant__ AttentionTask<T> task, const __grid_constant__ TensorMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  const QueryGradientMemory<kDim> memory{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  const QueryWork work(task, kGradientQueries);
  if (!work.tile.exists()) return;
  if (threadIdx.x == 0) init_barriers(memory);
  __syncthreads();
  const int group = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == kQueryGroups) {
    setmaxnreg_dec<32>();
    if (threadIdx.x % 128 < 32) load_query_gradient<T, kDim>(task, maps, memory, work);
  } else {
    setmaxnreg_inc<160>();
    QueryGradientMultiplier<T, kDim>(task, memory, work, group).run();
  }
#else
  __trap();
#endif
}

}  // namespace qshard::optimized::warpgroup_attention
