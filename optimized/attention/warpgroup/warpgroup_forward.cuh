#pragma once

#include "optimized/attention/warpgroup/query_work.cuh"
#include "optimized/ptx/uniform.cuh"

// The forward pass: a thread block keeps 192 queries of one head, 64 a warpgroup, and walks along the keys that they
// see, with a softmax that is corrected on the way (arXiv 2307.08691). While one warpgroup makes exponentials, the
// others multiply.
namespace qshard::optimized::warpgroup_attention {

inline constexpr int kForwardGroups = 3;
inline constexpr int kForwardStages = 4;
inline constexpr int kForwardQueries = kForwardGroups * kTileTokens;

/// Passing: k and v of 64 keys.
template <int kDim>
using ForwardMemory = Memory<kDim, kForwardGroups, 1, kForwardStages, 0>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, int kDim>
__device__ __forceinline__ void load_forward(const AttentionTask<T>& task, const TensorMaps& maps,
                                             const ForwardMemory<kDim>& memory, const QueryWork& work) {
  const HeadRows<T> keys[2] = {{maps.k, task.k, task.kv_stride, task.head_dim},
                               {maps.v, task.v, task.kv_stride, task.head_dim}};
  const HeadRows<T> queries[1] = {{maps.q, task.q, task.q_stride, task.head_dim}};
#pragma unroll 1
  for (int group = 0; group < kForwardGroups; ++group) {
    const int query = work.tile.first + group * kTileTokens;
    load_tiles<kDim>(queries, work.head, {memory.fixed(group, 0)}, work.tile.begin + query, work.tile.length - query,
                     memory.fixed_full());
  }
  load_keys<kDim>(keys, memory, work);
}

/// One warpgroup's 64 queries.
template <typename T, int kDim>
class ForwardMultiplier {
 public:
  __device__ __forceinline__ ForwardMultiplier(const AttentionTask<T>& task, const ForwardMemory<kDim>& memory,
                                               const QueryWork& work, int group)
      : task_(task),
        memory_(memory),
        work_(work),
        group_(group),
        walk_(work, group),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4) {
#pragma unroll
    for (float& value : o_) value = 0.0F;
  }

  /// While the values of one step are multiplied, the next step's exponentials are made.
  __device__ __forceinline__ void run() {
    mbarrier_wait(memory_.fixed_full(), 0);
    if (!walk_.find(memory_, work_, task_.window)) return;
    float scores[32];
    std::uint32_t operand[4][4];
    multiply_scores(scores);
    wgmma_wait<0>(scores);
    weigh(scores);
    round_operand<T>(scores, operand);
    int stage = walk_.counter.stage;
    walk_.advance();
    while (walk_.find(memory_, work_, task_.window)) {
      multiply_scores(scores);
      add_values(operand, stage);
      wgmma_wait<1>(scores);
      weigh(scores);
      wgmma_wait<0>(o_);
      release(memory_, stage);
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) o_[i] *= correction_[i / 2 % 2];
      round_operand<T>(scores, operand);
      stage = walk_.counter.stage;
      walk_.advance();
    }
    add_values(operand, stage);
    wgmma_wait<0>(o_);
    release(memory_, stage);
    store();
  }

 private:
  __device__ __forceinline__ void multiply_scores(float (&scores)[32]) const {
    multiply_rows<T>(scores, TokenTile<kDim>{memory_.fixed(group_, 0)},
                     TokenTile<kDim>{memory_.passing(walk_.counter.stage, 0)});
  }

  __device__ __forceinline__ void add_values(std::uint32_t (&operand)[4][4], int stage) {
    wgmma_fence(o_);
    add_product<T, kDim>(o_, operand, TokenTile<kDim>{memory_.passing(stage, 1)}, true);
  }

  /// Replaces scores by exp(scale (score - greatest)).
  __device__ __forceinline__ void weigh(float (&scores)[32]) {
    hide_keys(scores, walk_.query, row_, walk_.key, task_.window, -INFINITY);
    correction_[0] = weigh_row(0, scores);
    correction_[1] = weigh_row(1, scores);
  }

  /// Of one of the thread's two rows: replaces scores by exp(scale (score - greatest)); returns what brings earlier
  /// sums to the new greatest.
  __device__ __forceinline__ float weigh_row(int half, float (&p)[32]) {
    const float exponent_scale = task_.scale * kLog2E;
    float most = greatest_[half];
#pragma unroll
    for (int i = 0; i < 8; ++i) most = fmaxf(most, fmaxf(p[4 * i + 2 * half], p[4 * i + 2 * half + 1]));
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, 2));
    const float base = most == -INFINITY ? 0.0F : most;  // a row that has seen no key yet
    const float correction = exp2_ftz((greatest_[half] - base) * exponent_scale);
    greatest_[half] = most;
    float total = sum_[half] * correction;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& score = p[i / 2 * 4 + 2 * half + i % 2];
      score = exp2_ftz(fmaf(score, exponent_scale, -base * exponent_scale));
      total += score;
    }
    sum_[half] = total;
    return correction;
  }

  __device__ __forceinline__ void store() {
    const std::int64_t token = work_.tile.begin + walk_.query;
    const int present = work_.tile.length - walk_.query;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum_[half] + __shfl_xor_sync(0xFFFFFFFFU, sum_[half], 1);
      total += __shfl_xor_sync(0xFFFFFFFFU, total, 2);
      const float factor = 1.0F / total;
#pragma unroll
      for (int i = 0; i < kDim / 4; ++i) o_[i / 2 * 4 + 2 * half + i % 2] *= factor;
      const int row = row_ + 8 * half;
      if (lane_ % 4 == 0 && row < present) {
        task_.lse[static_cast<std::int64_t>(work_.head) * task_.tokens + token + row] =
            greatest_[half] * task_.scale + logf(total);
      }
    }
    TokenTile<kDim>{memory_.fixed(group_, 0)}.template store<T>(
        o_, 1.0F, task_.o + token * task_.o_stride + work_.head * task_.head_dim, task_.o_stride, task_.head_dim,
        present);
  }

  const AttentionTask<T>& task_;
  const ForwardMemory<kDim>& memory_;
  const QueryWork& work_;
  int group_;
  KeyWalk<ForwardMemory<kDim>> walk_;
  int lane_;
  int row_;
  float correction_[2];                         // what brings earlier sums to the new greatest
  float greatest_[2] = {-INFINITY, -INFINITY};  // score so far, of rows row_ and row_ + 8
  float sum_[2] = {0.0F, 0.0F};                 // of exp(score - greatest), of the thread's own columns
  float o_[kDim / 2];
};

#endif

/// grid: (heads, tile_slots()), the last slots first: they have the most keys.
template <typename T, int kDim>
__global__ void __launch_bounds__(ForwardMemory<kDim>::kThreads, 1)
    warpgroup_forward(const __grid_constant__ AttentionTask<T> task, const __grid_constant__ TensorMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  const ForwardMemory<kDim> memory{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  begin_kernel(memory, maps);
  const QueryWork work(task, kForwardQueries);
  if (!work.tile.exists()) return;
  __syncthreads();
  const int group = warpgroup_index();
  if (group == kForwardGroups) {
    setmaxnreg_dec<32>();
    if (threadIdx.x % 128 < 32) load_forward<T, kDim>(task, maps, memory, work);
  } else {
    setmaxnreg_inc<160>();
    ForwardMultiplier<T, kDim>(task, memory, work, group).run();
  }
#else
  __trap();
#endif
}

}  // namespace qshard::optimized::warpgroup_attention
