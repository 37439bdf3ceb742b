#pragma once

#include "optimized/attention/row_tiles.h"
#include "optimized/attention/warpgroup/warpgroup_stages.cuh"
#include "optimized/ptx/uniform.cuh"

// dk and dv: a thread block keeps 128 keys, 64 a warpgroup, and walks along the queries that see them, of all its
// heads. Everything is transposed, [keys, queries], so that p and ds are made in the registers where the next product
// wants them.
namespace qshard::optimized::warpgroup_attention {

inline constexpr int kKeyGroups = 2;
inline constexpr int kKeyStages = 4;
inline constexpr int kGradientKeys = kKeyGroups * kTileTokens;

/// Passing: q and dout of 64 queries, and their lse (times log2(e)) and delta.
template <int kDim>
using KeyGradientMemory = Memory<kDim, kKeyGroups, 2, kKeyStages, 2 * kTileTokens>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// What a thread block does.
struct KeyGradientWork {
  RowTile tile;
  PositionRange queries;
  int kv_head;
  int split;
  int first_head;
  int heads;

  template <typename T>
  __device__ __forceinline__ explicit KeyGradientWork(const AttentionTask<T>& task)
      : tile(tile_of_slot(task.offsets, task.rows, kGradientKeys, static_cast<int>(blockIdx.y))),
        queries(queries_of_keys(tile, kGradientKeys, task.window)),
        kv_head(static_cast<int>(blockIdx.x) / task.splits),
        split(static_cast<int>(blockIdx.x) % task.splits),
        heads(task.heads / task.kv_heads / task.splits) {
    first_head = (kv_head * task.splits + split) * heads;
  }
};

/// lse (times log2(e)) and delta of 64 queries; those that are not there add nothing, since their dout is 0.
template <typename T>
__device__ __forceinline__ void load_statistics(const AttentionTask<T>& task, int head, int token, int present,
                                                std::uint32_t to) {
  const std::int64_t at = static_cast<std::int64_t>(head) * task.tokens + token;
#pragma unroll
  for (int part = 0; part < kTileTokens / 32; ++part) {
    const int i = 32 * part + static_cast<int>(threadIdx.x) % 32;
    const bool inside = i < present;
    store_shared_u32(to + 4 * i, __float_as_uint(inside ? task.lse[at + i] * kLog2E : 0.0F));
    store_shared_u32(to + 4 * (kTileTokens + i), __float_as_uint(inside ? task.delta[at + i] : 0.0F));
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void load_key_gradient(const AttentionTask<T>& task, const TensorMaps& maps,
                                                  const KeyGradientMemory<kDim>& memory, const KeyGradientWork& work) {
  const HeadRows<T> keys[2] = {{maps.k, task.k, task.kv_stride, task.head_dim},
                               {maps.v, task.v, task.kv_stride, task.head_dim}};
  const HeadRows<T> queries[2] = {{maps.q, task.q, task.q_stride, task.head_dim},
                                  {maps.dout, task.dout, task.o_stride, task.head_dim}};
#pragma unroll 1
  for (int group = 0; group < kKeyGroups; ++group) {
    const int key = work.tile.first + group * kTileTokens;
    load_tiles<kDim>(keys, work.kv_head, {memory.fixed(group, 0), memory.fixed(group, 1)}, work.tile.begin + key,
                     work.tile.length - key, memory.fixed_full());
  }
  StageCounter<kKeyStages> counter;
  for (int head = work.first_head; head < work.first_head + work.heads; ++head) {
    for (int query = work.queries.begin; query < work.queries.end; query += kTileTokens, counter.advance()) {
      const int token = work.tile.begin + query;
      const int present = work.tile.length - query;
      mbarrier_wait(memory.empty(counter.stage), counter.parity ^ 1);
      load_statistics(task, head, token, present, memory.floats(counter.stage));
      load_tiles<kDim>(queries, head, {memory.passing(counter.stage, 0), memory.passing(counter.stage, 1)}, token,
                       present, memory.full(counter.stage));
    }
  }
}

/// One warpgroup's 64 keys.
template <typename T, int kDim>
class KeyGradientMultiplier {
 public:
  __device__ __forceinline__ KeyGradientMultiplier(const AttentionTask<T>& task, const KeyGradientMemory<kDim>& memory,
                                                   const KeyGradientWork& work, int group)
      : task_(task),
        memory_(memory),
        work_(work),
        group_(group),
        key_(work.tile.first + group * kTileTokens),
        present_(work.tile.length - key_),
        lane_(static_cast<int>(threadIdx.x) % 32),
        query_(work.queries.begin) {
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) dk_[i] = dv_[i] = 0.0F;
  }

  /// While one step's parts of dv and dk are multiplied, the next step's p and ds are made.
  __device__ __forceinline__ void run() {
    mbarrier_wait(memory_.fixed_full(), 0);
    if (!find_queries()) return;
    float p[32];
    float ds[32];
    std::uint32_t weights[4][4];
    std::uint32_t gradients[4][4];
    multiply_rows<T>(p, tile(0), passing(counter_.stage, 0));
    multiply_rows<T>(ds, tile(1), passing(counter_.stage, 1));
    wgmma_wait<1>(p);
    make_probabilities(p);
    wgmma_wait<0>(ds);
    make_score_gradients(p, ds);
    round_operand<T>(p, weights);
    round_operand<T>(ds, gradients);
    int stage = counter_.stage;
    advance();
    while (find_queries()) {
      multiply_rows<T>(p, tile(0), passing(counter_.stage, 0));
      add_product<T, kDim>(dv_, weights, passing(stage, 1), true);
      add_product<T, kDim>(dk_, gradients, passing(stage, 0), true);
      wgmma_wait<2>(p);
      make_probabilities(p);
      wgmma_wait<0>(dv_);
      wgmma_wait<0>(dk_);
      release(memory_, stage);
      multiply_rows<T>(ds, tile(1), passing(counter_.stage, 1));
      wgmma_wait<0>(ds);
      make_score_gradients(p, ds);
      round_operand<T>(p, weights);
      round_operand<T>(ds, gradients);
      stage = counter_.stage;
      advance();
    }
    add_product<T, kDim>(dv_, weights, passing(stage, 1), true);
    add_product<T, kDim>(dk_, gradients, passing(stage, 0), true);
    wgmma_wait<0>(dv_);
    wgmma_wait<0>(dk_);
    release(memory_, stage);
    store();
  }

 private:
  [[nodiscard]] __device__ __forceinline__ TokenTile<kDim> tile(int which) const {
    return {memory_.fixed(group_, which)};
  }
  [[nodiscard]] __device__ __forceinline__ TokenTile<kDim> passing(int stage, int which) const {
    return {memory_.passing(stage, which)};
  }

  /// Waits for the next queries, at or after those of this step, that see a key of this warpgroup; passes those over
  /// that see none. Returns whether there are any.
  __device__ __forceinline__ bool find_queries() {
    for (; head_ < work_.heads; advance()) {
      mbarrier_wait(memory_.full(counter_.stage), counter_.parity);
      if (present_ > 0 && any_sees(query_, kTileTokens, key_, kTileTokens, task_.window)) return true;
      release(memory_, counter_.stage);
    }
    return false;
  }

  __device__ __forceinline__ void advance() {
    counter_.advance();
    query_ += kTileTokens;
    if (query_ < work_.queries.end) return;
    query_ = work_.queries.begin;
    ++head_;
  }

  /// exp(scale score - lse) in place of the scores.
  __device__ __forceinline__ void make_probabilities(float (&p)[32]) const {
    const float exponent_scale = task_.scale * kLog2E;
    const std::uint32_t lse = memory_.floats(counter_.stage) + lane_ % 4 * 8;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 of = load_shared_f32x2(lse + 32 * i);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        p[4 * i + c] = exp2_ftz(fmaf(p[4 * i + c], exponent_scale, -(c % 2 == 0 ? of.x : of.y)));
      }
    }
    if (all_see(query_, kTileTokens, key_, kTileTokens, task_.window)) return;
    const int key = key_ + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (!sees(query_ + 8 * i + lane_ % 4 * 2 + c % 2, key + c / 2 * 8, task_.window)) p[4 * i + c] = 0.0F;
      }
    }
  }

  /// ds = p (dp - delta) in place of dp.
  __device__ __forceinline__ void make_score_gradients(const float (&p)[32], float (&ds)[32]) const {
    const std::uint32_t delta = memory_.floats(counter_.stage) + 4 * kTileTokens + lane_ % 4 * 8;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 of = load_shared_f32x2(delta + 32 * i);
#pragma unroll
      for (int c = 0; c < 4; ++c) ds[4 * i + c] = p[4 * i + c] * (ds[4 * i + c] - (c % 2 == 0 ? of.x : of.y));
    }
  }

  __device__ __forceinline__ void store() {
    const std::int64_t token = work_.tile.begin + key_;
    if (task_.splits > 1) {
      const std::int64_t stride = static_cast<std::int64_t>(task_.kv_heads) * task_.head_dim;
      const std::int64_t at =
          (work_.split * static_cast<std::int64_t>(task_.tokens) + token) * stride + work_.kv_head * task_.head_dim;
      store_partial(dk_, task_.scale, task_.partial_k + at, stride, present_);
      store_partial(dv_, 1.0F, task_.partial_v + at, stride, present_);
      return;
    }
    const std::int64_t at = token * task_.kv_stride + work_.kv_head * task_.head_dim;
    tile(0).template store<T>(dk_, task_.scale, task_.dk + at, task_.kv_stride, task_.head_dim, present_);
    tile(1).template store<T>(dv_, 1.0F, task_.dv + at, task_.kv_stride, task_.head_dim, present_);
  }

  /// Writes factor * sums as float.
  __device__ __forceinline__ void store_partial(const float (&sums)[kDim / 2], float factor, float* to,
                                                std::int64_t stride, int present) const {
    const int first = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first + 8 * half;
        if (row >= present || 8 * i >= task_.head_dim) continue;
        *reinterpret_cast<float2*>(to + row * stride + 8 * i + lane_ % 4 * 2) =
            make_float2(sums[4 * i + 2 * half] * factor, sums[4 * i + 2 * half + 1] * factor);
      }
    }
  }

  const AttentionTask<T>& task_;
  const KeyGradientMemory<kDim>& memory_;
  const KeyGradientWork& work_;
  int group_;
  int key_;
  int present_;
  int lane_;
  int head_ = 0;  // of the thread block's
  int query_;
  StageCounter<kKeyStages> counter_;
  float dk_[kDim / 2];
  float dv_[kDim / 2];
};

#endif

/// grid: (kv_heads * splits, tile_slots()), the first slots first: they have the most queries.
template <typename T, int kDim>
__global__ void __launch_bounds__(KeyGradientMemory<kDim>::kThreads, 1)
    warpgroup_key_gradient(const __grid_constant__ AttentionTask<T> task, const __grid_constant__ TensorMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  const KeyGradientMemory<kDim> memory{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  begin_kernel(memory, maps);
  const KeyGradientWork work(task);
  if (!work.tile.exists()) return;
  __syncthreads();
  const int group = warpgroup_index();
  if (group == kKeyGroups) {
    setmaxnreg_dec<40>();
    if (threadIdx.x % 128 < 32) load_key_gradient<T, kDim>(task, maps, memory, work);
  } else {
    setmaxnreg_inc<232>();
    KeyGradientMultiplier<T, kDim>(task, memory, work, group).run();
  }
#else
  __trap();
#endif
}

}  // namespace qshard::optimized::warpgroup_attention
