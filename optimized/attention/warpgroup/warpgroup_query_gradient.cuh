#pragma once

#include "optimized/attention/warpgroup/query_work.cuh"
#include "optimized/ptx/uniform.cuh"

// dq: a thread block keeps 128 queries of one head, 64 a warpgroup, and walks along the keys that they see.
namespace qshard::optimized::warpgroup_attention {

inline constexpr int kQueryGroups = 2;
inline constexpr int kQueryStages = 4;
inline constexpr int kGradientQueries = kQueryGroups * kTileTokens;

/// Passing: k and v of 64 keys.
template <int kDim>
using QueryGradientMemory = Memory<kDim, kQueryGroups, 2, kQueryStages, 0>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, int kDim>
__device__ __forceinline__ void load_query_gradient(const AttentionTask<T>& task, const TensorMaps& maps,
                                                    const QueryGradientMemory<kDim>& memory, const QueryWork& work) {
  const HeadRows<T> keys[2] = {{maps.k, task.k, task.kv_stride, task.head_dim},
                               {maps.v, task.v, task.kv_stride, task.head_dim}};
  const HeadRows<T> queries[2] = {{maps.q, task.q, task.q_stride, task.head_dim},
                                  {maps.dout, task.dout, task.o_stride, task.head_dim}};
#pragma unroll 1
  for (int group = 0; group < kQueryGroups; ++group) {
    const int query = work.tile.first + group * kTileTokens;
    load_tiles<kDim>(queries, work.head, {memory.fixed(group, 0), memory.fixed(group, 1)}, work.tile.begin + query,
                     work.tile.length - query, memory.fixed_full());
  }
  load_keys<kDim>(keys, memory, work);
}

/// One warpgroup's 64 queries.
template <typename T, int kDim>
class QueryGradientMultiplier {
 public:
  __device__ __forceinline__ QueryGradientMultiplier(const AttentionTask<T>& task,
                                                     const QueryGradientMemory<kDim>& memory, const QueryWork& work,
                                                     int group)
      : task_(task),
        memory_(memory),
        work_(work),
        group_(group),
        walk_(work, group),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4) {
    const std::int64_t at = static_cast<std::int64_t>(work.head) * task.tokens + work.tile.begin + walk_.query + row_;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool inside = row_ + 8 * half < present();
      lse_log2_[half] = inside ? task.lse[at + 8 * half] * kLog2E : 0.0F;
      delta_[half] = inside ? task.delta[at + 8 * half] : 0.0F;
    }
#pragma unroll
    for (float& value : dq_) value = 0.0F;
  }

  /// While one step's part of dq is multiplied, the next step's gradients of scores are made.
  __device__ __forceinline__ void run() {
    mbarrier_wait(memory_.fixed_full(), 0);
    if (!walk_.find(memory_, work_, task_.window)) return;
    float p[32];
    float ds[32];
    std::uint32_t operand[4][4];
    multiply_scores(p, ds);
    wgmma_wait<1>(p);
    make_probabilities(p);
    wgmma_wait<0>(ds);
    make_score_gradients(p, ds);
    round_operand<T>(ds, operand);
    int stage = walk_.counter.stage;
    walk_.advance();
    while (walk_.find(memory_, work_, task_.window)) {
      multiply_scores(p, ds);
      add_keys(operand, stage);
      wgmma_wait<2>(p);
      make_probabilities(p);
      wgmma_wait<1>(ds);
      make_score_gradients(p, ds);
      wgmma_wait<0>(dq_);
      release(memory_, stage);
      round_operand<T>(ds, operand);
      stage = walk_.counter.stage;
      walk_.advance();
    }
    add_keys(operand, stage);
    wgmma_wait<0>(dq_);
    release(memory_, stage);
    TokenTile<kDim>{memory_.fixed(group_, 0)}.template store<T>(
        dq_, task_.scale, task_.dq + (work_.tile.begin + walk_.query) * task_.q_stride + work_.head * task_.head_dim,
        task_.q_stride, task_.head_dim, present());
  }

 private:
  [[nodiscard]] __device__ __forceinline__ int present() const {
    return work_.tile.length - walk_.query;
  }

  /// Of these keys: the scores, and dp in place of ds.
  __device__ __forceinline__ void multiply_scores(float (&p)[32], float (&ds)[32]) const {
    const int stage = walk_.counter.stage;
    multiply_rows<T>(p, TokenTile<kDim>{memory_.fixed(group_, 0)}, TokenTile<kDim>{memory_.passing(stage, 0)});
    multiply_rows<T>(ds, TokenTile<kDim>{memory_.fixed(group_, 1)}, TokenTile<kDim>{memory_.passing(stage, 1)});
  }

  __device__ __forceinline__ void add_keys(std::uint32_t (&operand)[4][4], int stage) {
    add_product<T, kDim>(dq_, operand, TokenTile<kDim>{memory_.passing(stage, 0)}, true);
  }

  /// ds = p (dp - delta) in place of dp.
  __device__ __forceinline__ void make_score_gradients(const float (&p)[32], float (&ds)[32]) const {
#pragma unroll
    for (int i = 0; i < 32; ++i) ds[i] = p[i] * (ds[i] - delta_[i / 2 % 2]);
  }

  /// exp(scale score - lse) in place of the scores.
  __device__ __forceinline__ void make_probabilities(float (&p)[32]) const {
    const float exponent_scale = task_.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < 32; ++i) p[i] = exp2_ftz(fmaf(p[i], exponent_scale, -lse_log2_[i / 2 % 2]));
    hide_keys(p, walk_.query, row_, walk_.key, task_.window, 0.0F);
  }

  const AttentionTask<T>& task_;
  const QueryGradientMemory<kDim>& memory_;
  const QueryWork& work_;
  int group_;
  KeyWalk<QueryGradientMemory<kDim>> walk_;
  int row_;
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
  begin_kernel(memory, maps);
  const QueryWork work(task, kGradientQueries);
  if (!work.tile.exists()) return;
  __syncthreads();
  const int group = warpgroup_index();
  if (group == kQueryGroups) {
    setmaxnreg_dec<40>();
    if (threadIdx.x % 128 < 32) load_query_gradient<T, kDim>(task, maps, memory, work);
  } else {
    setmaxnreg_inc<232>();
    QueryGradientMultiplier<T, kDim>(task, memory, work, group).run();
  }
#else
  __trap();
#endif
}

}  // namespace qshard::optimized::warpgroup_attention
