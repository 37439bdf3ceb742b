#pragma once

#include "optimized/attention/tensor_core_forward.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

// The backward pass on tensor cores, for sm_80 and later: one kernel keeps a tile of queries and walks along the keys,
// for dq; another keeps a tile of keys and walks along the queries, for dk and dv. Scores are thus made twice, but no
// sum needs atomic additions or an accumulator in device memory, so that the order of all sums is fixed.
namespace qshard::optimized {

/// Two row tiles a warp as in ForwardTiling; the keys of a step are so few that the registers suffice.
template <int kDim>
struct QueryGradientTiling {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = kDim <= 128 ? 2 : 1;
  static constexpr int kQueries = 16 * kRowTiles * kWarps;
  static constexpr int kKeys = kDim <= 128 ? 32 : 16;
  static constexpr int kQueryBytes = 2 * kQueries * kDim;
  static constexpr int kKeyBytes = 2 * kKeys * kDim;
  static constexpr int kSharedBytes = 2 * kQueryBytes + 4 * kKeyBytes;
};

/// ds = p (dp - delta), in place of dp, with p = exp(scale score - lse), in place of the scores, of which those that
/// are hidden are -inf. lse_log2: lse * log2(e).
template <int kRowTiles, int kColumns>
__device__ __forceinline__ void score_gradient(float exponent_scale, const float (&lse_log2)[kRowTiles][2],
                                               const float (&delta)[kRowTiles][2],
                                               const WarpSums<kRowTiles, kColumns>& scores,
                                               WarpSums<kRowTiles, kColumns>& dp) {
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float p = exp2_ftz(fmaf(scores.value[i][j][c], exponent_scale, -lse_log2[i][c / 2]));
        dp.value[i][j][c] = p * (dp.value[i][j][c] - delta[i][c / 2]);
      }
    }
  }
}

/// dq. grid: (heads, tile_slots()), the last slots first: they have the most keys.
template <typename T, int kDim>
__global__ __launch_bounds__(QueryGradientTiling<kDim>::kThreads) void tensor_core_query_gradient(
    AttentionTask<T> task) {
  begin_early_kernel();
  using Tiling = QueryGradientTiling<kDim>;
  constexpr int kRowTiles = Tiling::kRowTiles;
  constexpr int kKeys = Tiling::kKeys;
  extern __shared__ __align__(128) std::uint8_t shared_memory[];
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const auto head = static_cast<int>(blockIdx.x);
  const int kv_head = head / (task.heads / task.kv_heads);
  const RowTile tile =
      tile_of_slot(task.offsets, task.rows, Tiling::kQueries, static_cast<int>(gridDim.y - 1 - blockIdx.y));
  if (!tile.exists()) return;
  const PositionRange keys = keys_of_queries(tile, Tiling::kQueries, task.window);
  const int first_key = keys.begin / kKeys * kKeys;
  const int first_token = tile.begin + tile.first;
  const int queries = tile.length - tile.first;

  const SharedTile<kDim> q{shared};
  const SharedTile<kDim> dout{shared + Tiling::kQueryBytes};
  const auto stage_of = [&](int step) {
    return shared + static_cast<std::uint32_t>(2 * Tiling::kQueryBytes + step % 2 * 2 * Tiling::kKeyBytes);
  };
  const auto load_keys = [&](int step) {
    const int key = first_key + step * kKeys;
    const std::int64_t from = (tile.begin + key) * task.kv_stride + kv_head * task.head_dim;
    const SharedTile<kDim> k{stage_of(step)};
    const SharedTile<kDim> v{k.address + Tiling::kKeyBytes};
    k.template load<kKeys, Tiling::kThreads>(task.k + from, task.kv_stride, keys.end - key, task.head_dim);
    v.template load<kKeys, Tiling::kThreads>(task.v + from, task.kv_stride, keys.end - key, task.head_dim);
  };
  q.template load<Tiling::kQueries, Tiling::kThreads>(task.q + first_token * task.q_stride + head * task.head_dim,
                                                      task.q_stride, queries, task.head_dim);
  dout.template load<Tiling::kQueries, Tiling::kThreads>(task.dout + first_token * task.o_stride + head * task.head_dim,
                                                         task.o_stride, queries, task.head_dim);
  load_keys(0);
  cp_async_commit();

  const auto warp_row = static_cast<int>(threadIdx.x) / 32 * 16 * kRowTiles;
  const int query = tile.first + warp_row;
  const float exponent_scale = task.scale * kLog2E;
  float lse_log2[kRowTiles][2];
  float delta[kRowTiles][2];
  float factor[kRowTiles][2];
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + 16 * i + 8 * half + static_cast<int>(threadIdx.x) % 32 / 4;
      const std::int64_t at = static_cast<std::int64_t>(head) * task.tokens + first_token + row;
      lse_log2[i][half] = row < queries ? task.lse[at] * kLog2E : 0.0F;
      delta[i][half] = row < queries ? task.delta[at] : 0.0F;
      factor[i][half] = task.scale;
    }
  }

  WarpSums<kRowTiles, kDim> dq;
  dq.clear();
  for (int step = 0; first_key + step * kKeys < keys.end; ++step) {
    const int key = first_key + step * kKeys;
    cp_async_wait<0>();
    __syncthreads();  // this step's keys are there, and the last step's are no longer read
    if (key + kKeys < keys.end) load_keys(step + 1);
    cp_async_commit();
    if (!any_sees(query, 16 * kRowTiles, key, kKeys, task.window)) continue;
    const SharedTile<kDim> k{stage_of(step)};
    const SharedTile<kDim> v{k.address + Tiling::kKeyBytes};
    WarpSums<kRowTiles, kKeys> scores;
    scores.clear();
    scores.template add_product_of_rows<T>(q, warp_row, k);
    hide_keys(scores, query, key, task.window, -INFINITY);
    WarpSums<kRowTiles, kKeys> ds;
    ds.clear();
    ds.template add_product_of_rows<T>(dout, warp_row, v);
    score_gradient(exponent_scale, lse_log2, delta, scores, ds);
    dq.template add_product<T>(ds, k);
  }
  dq.template store<T>(factor, q, warp_row, task.dq + (first_token + warp_row) * task.q_stride + head * task.head_dim,
                       task.q_stride, queries - warp_row, task.head_dim);
}

/// One row tile of keys a warp: dk and dv take the registers. kDim 256 makes one of the two at a time.
template <int kDim>
struct KeyGradientTiling {
  static constexpr int kWarps = kDim <= 128 ? 8 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kKeys = 16 * kWarps;
  static constexpr int kQueries = kDim <= 64 ? 64 : kDim <= 128 ? 32 : 16;
  static constexpr int kKeyBytes = 2 * kKeys * kDim;
  static constexpr int kQueryBytes = 2 * kQueries * kDim;
  static constexpr int kStatisticBytes = 4 * kQueries;  // of lse, and of delta
  static constexpr int kStageBytes = 2 * kQueryBytes + 2 * kStatisticBytes;
  static constexpr int kSharedBytes = 2 * kKeyBytes + 2 * kStageBytes;
};

/// A stage of tensor_core_key_gradient(): a tile of queries of one head.
template <int kDim>
struct QueryStage {
  SharedTile<kDim> q;
  SharedTile<kDim> dout;
  std::uint32_t lse;
  std::uint32_t delta;

  __device__ __forceinline__ explicit QueryStage(std::uint32_t address)
      : q{address},
        dout{address + KeyGradientTiling<kDim>::kQueryBytes},
        lse(address + 2 * KeyGradientTiling<kDim>::kQueryBytes),
        delta(lse + KeyGradientTiling<kDim>::kStatisticBytes) {}

  /// Starts copying the tile of `head` that begins at `token`; what lies beyond `present` queries becomes zeros, which
  /// add nothing to dk and dv.
  template <typename T>
  __device__ __forceinline__ void load(const AttentionTask<T>& task, int head, int token, int present) const {
    using Tiling = KeyGradientTiling<kDim>;
    q.template load<Tiling::kQueries, Tiling::kThreads>(task.q + token * task.q_stride + head * task.head_dim,
                                                        task.q_stride, present, task.head_dim);
    dout.template load<Tiling::kQueries, Tiling::kThreads>(task.dout + token * task.o_stride + head * task.head_dim,
                                                           task.o_stride, present, task.head_dim);
    const auto i = static_cast<int>(threadIdx.x);
    if (i < Tiling::kQueries) {
      const std::int64_t at = static_cast<std::int64_t>(head) * task.tokens + token;
      const bool inside = i < present;
      cp_async<4>(lse + 4 * i, task.lse + at + (inside ? i : 0), inside);
      cp_async<4>(delta + 4 * i, task.delta + at + (inside ? i : 0), inside);
    }
  }
};

/// Writes factor * sums as float to rows of head_dim elements, `stride` apart, the first `present` of them.
template <int kDim>
__device__ __forceinline__ void store_partial(const WarpSums<1, kDim>& sums, float factor, float* to,
                                              std::int64_t stride, int present, int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      const int column = 8 * j + lane % 4 * 2;
      if (row >= present || column >= head_dim) continue;
      *reinterpret_cast<float2*>(to + row * stride + column) =
          make_float2(sums.value[0][j][2 * half] * factor, sums.value[0][j][2 * half + 1] * factor);
    }
  }
}

/// dk where kForKey, dv where kForValue. Everything is transposed, [keys, queries], so that p and ds are made in the
/// registers where the next product wants them. grid: (kv_heads * splits, tile_slots()), the first slots first: they
/// have the most queries.
template <typename T, int kDim, bool kForKey, bool kForValue>
__global__ __launch_bounds__(KeyGradientTiling<kDim>::kThreads) void tensor_core_key_gradient(AttentionTask<T> task) {
  begin_early_kernel();
  using Tiling = KeyGradientTiling<kDim>;
  constexpr int kQueries = Tiling::kQueries;
  extern __shared__ __align__(128) std::uint8_t shared_memory[];
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const int kv_head = static_cast<int>(blockIdx.x) / task.splits;
  const int split = static_cast<int>(blockIdx.x) % task.splits;
  const int heads = task.heads / task.kv_heads / task.splits;  // of this thread block
  const int first_head = (kv_head * task.splits + split) * heads;
  const RowTile tile = tile_of_slot(task.offsets, task.rows, Tiling::kKeys, static_cast<int>(blockIdx.y));
  if (!tile.exists()) return;
  const PositionRange queries = queries_of_keys(tile, Tiling::kKeys, task.window);
  const int steps_a_head = (queries.end - queries.begin + kQueries - 1) / kQueries;
  const int first_token = tile.begin + tile.first;
  const int present = tile.length - tile.first;

  const SharedTile<kDim> k{shared};
  const SharedTile<kDim> v{shared + Tiling::kKeyBytes};
  const auto stage_of = [&](int step) {
    return QueryStage<kDim>(shared +
                            static_cast<std::uint32_t>(2 * Tiling::kKeyBytes + step % 2 * Tiling::kStageBytes));
  };
  const auto load_queries = [&](int step) {
    const int query = queries.begin + step % steps_a_head * kQueries;
    stage_of(step).load(task, first_head + step / steps_a_head, tile.begin + query, queries.end - query);
  };
  const std::int64_t from = first_token * task.kv_stride + kv_head * task.head_dim;
  k.template load<Tiling::kKeys, Tiling::kThreads>(task.k + from, task.kv_stride, present, task.head_dim);
  v.template load<Tiling::kKeys, Tiling::kThreads>(task.v + from, task.kv_stride, present, task.head_dim);
  load_queries(0);
  cp_async_commit();

  const auto warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int key = tile.first + warp_row;
  const float exponent_scale = task.scale * kLog2E;
  WarpSums<1, kDim> dk;
  WarpSums<1, kDim> dv;
  dk.clear();
  dv.clear();
  for (int step = 0; step < heads * steps_a_head; ++step) {
    cp_async_wait<0>();
    __syncthreads();  // this step's queries are there, and the last step's are no longer read
    if (step + 1 < heads * steps_a_head) load_queries(step + 1);
    cp_async_commit();
    const int query = queries.begin + step % steps_a_head * kQueries;
    if (!any_sees(query, kQueries, key, 16, task.window)) continue;
    const QueryStage<kDim> stage = stage_of(step);
    WarpSums<1, kQueries> p;
    p.clear();
    p.template add_product_of_rows<T>(k, warp_row, stage.q);
    const bool all = all_see(query, kQueries, key, 16, task.window);
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      const float2 lse = load_shared_f32x2(stage.lse + 4 * (8 * j + lane % 4 * 2));
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int column = 8 * j + lane % 4 * 2 + c % 2;
        const bool seen = all || sees(query + column, key + lane / 4 + c / 2 * 8, task.window);
        const float exponent = fmaf(p.value[0][j][c], exponent_scale, -(c % 2 == 0 ? lse.x : lse.y) * kLog2E);
        p.value[0][j][c] = seen ? exp2_ftz(exponent) : 0.0F;
      }
    }
    if constexpr (kForValue) dv.template add_product<T>(p, stage.dout);
    if constexpr (kForKey) {
      WarpSums<1, kQueries> ds;
      ds.clear();
      ds.template add_product_of_rows<T>(v, warp_row, stage.dout);
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
        const float2 delta = load_shared_f32x2(stage.delta + 4 * (8 * j + lane % 4 * 2));
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          ds.value[0][j][c] = p.value[0][j][c] * (ds.value[0][j][c] - (c % 2 == 0 ? delta.x : delta.y));
        }
      }
      dk.template add_product<T>(ds, stage.q);
    }
  }

  const std::int64_t token = first_token + warp_row;
  const int rows = present - warp_row;
  if (task.splits > 1) {
    const std::int64_t stride = static_cast<std::int64_t>(task.kv_heads) * task.head_dim;
    const std::int64_t at = (split * static_cast<std::int64_t>(task.tokens) + token) * stride + kv_head * task.head_dim;
    if constexpr (kForKey) store_partial(dk, task.scale, task.partial_k + at, stride, rows, task.head_dim);
    if constexpr (kForValue) store_partial(dv, 1.0F, task.partial_v + at, stride, rows, task.head_dim);
    return;
  }
  const std::int64_t at = token * task.kv_stride + kv_head * task.head_dim;
  if constexpr (kForKey)
    dk.template store<T>({{task.scale, task.scale}}, k, warp_row, task.dk + at, task.kv_stride, rows, task.head_dim);
  if constexpr (kForValue)
    dv.template store<T>({{1.0F, 1.0F}}, v, warp_row, task.dv + at, task.kv_stride, rows, task.head_dim);
}

}  // namespace qshard::optimized
