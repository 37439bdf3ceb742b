#pragma once

#include <cmath>

#include "optimized/attention/attention_task.h"
#include "optimized/attention/row_tiles.h"
#include "optimized/attention/shared_tile.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

// The forward pass on tensor cores, for sm_80 and later, as FlashAttention-2 has it (arXiv 2307.08691): a thread block
// keeps a tile of queries and walks along the keys that they see, with a softmax that is corrected on the way.
namespace qshard::optimized {

/// Two row tiles a warp, so that each piece of k and v that a warp reads from shared memory is used twice: on Hopper
/// shared memory would limit the kernel otherwise. kDim 256 leaves registers for one.
template <int kDim>
struct ForwardTiling {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = kDim <= 128 ? 2 : 1;
  static constexpr int kQueries = 16 * kRowTiles * kWarps;
  static constexpr int kKeys = kDim <= 128 ? 64 : 32;
  static constexpr int kStages = 2;
  static constexpr int kQueryBytes = 2 * kQueries * kDim;
  static constexpr int kKeyBytes = 2 * kKeys * kDim;
  static constexpr int kSharedBytes = kQueryBytes + 2 * kStages * kKeyBytes;
};

/// Of a lane's rows, g and g + 8 of each row tile: the greatest score so far, and the sum of exp(score - greatest) of
/// the lane's own columns.
template <int kRowTiles>
struct OnlineSoftmax {
  float greatest[kRowTiles][2];
  float sum[kRowTiles][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        greatest[i][half] = -INFINITY;
        sum[i][half] = 0.0F;
      }
    }
  }

  /// Replaces scores by exp(scale (score - greatest)) and brings `o` to the new greatest. exponent_scale:
  /// scale * log2(e).
  template <int kKeys, int kDim>
  __device__ __forceinline__ void add(float exponent_scale, WarpSums<kRowTiles, kKeys>& scores,
                                      WarpSums<kRowTiles, kDim>& o) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = greatest[i][half];
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
          most = fmaxf(most, fmaxf(scores.value[i][j][2 * half], scores.value[i][j][2 * half + 1]));
        }
        most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, 2));
        const float base = most == -INFINITY ? 0.0F : most;  // a row that has seen no key yet
        const float correction = exp2_ftz((greatest[i][half] - base) * exponent_scale);
        greatest[i][half] = most;
        float total = sum[i][half] * correction;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int c = 2 * half; c < 2 * half + 2; ++c) {
            float& score = scores.value[i][j][c];
            score = exp2_ftz(fmaf(score, exponent_scale, -base * exponent_scale));
            total += score;
          }
        }
        sum[i][half] = total;
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
          o.value[i][j][2 * half] *= correction;
          o.value[i][j][2 * half + 1] *= correction;
        }
      }
    }
  }

  /// The row's sum of all lanes.
  [[nodiscard]] __device__ __forceinline__ float total(int i, int half) const {
    const float pair = sum[i][half] + __shfl_xor_sync(0xFFFFFFFFU, sum[i][half], 1);
    return pair + __shfl_xor_sync(0xFFFFFFFFU, pair, 2);
  }
};

/// Sets to `hidden` what the warp's queries, from `query` on, do not see of the keys from `key` on.
template <int kRowTiles, int kKeys>
__device__ __forceinline__ void hide_keys(WarpSums<kRowTiles, kKeys>& values, int query, int key, int window,
                                          float hidden) {
  if (all_see(query, 16 * kRowTiles, key, kKeys, window)) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int row = query + 16 * i + lane / 4 + c / 2 * 8;
        const int column = key + 8 * j + lane % 4 * 2 + c % 2;
        if (!sees(row, column, window)) values.value[i][j][c] = hidden;
      }
    }
  }
}

/// grid: (heads, tile_slots()), the last slots first: they have the most keys.
template <typename T, int kDim>
__global__ __launch_bounds__(ForwardTiling<kDim>::kThreads) void tensor_core_forward(AttentionTask<T> task) {
  begin_early_kernel();
  using Tiling = ForwardTiling<kDim>;
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

  const SharedTile<kDim> q{shared};
  const auto stage_of = [&](int step) {
    return shared + static_cast<std::uint32_t>(Tiling::kQueryBytes + step % 2 * 2 * Tiling::kKeyBytes);
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
                                                      task.q_stride, tile.length - tile.first, task.head_dim);
  load_keys(0);
  cp_async_commit();

  const auto warp_row = static_cast<int>(threadIdx.x) / 32 * 16 * kRowTiles;
  const int query = tile.first + warp_row;
  const float exponent_scale = task.scale * kLog2E;
  OnlineSoftmax<kRowTiles> softmax;
  WarpSums<kRowTiles, kDim> o;
  softmax.clear();
  o.clear();
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
    softmax.add(exponent_scale, scores, o);
    o.template add_product<T>(scores, v);
  }

  float factor[kRowTiles][2];
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = softmax.total(i, half);
      factor[i][half] = 1.0F / total;
      const int row = warp_row + 16 * i + 8 * half + lane / 4;
      if (lane % 4 == 0 && tile.first + row < tile.length) {
        task.lse[static_cast<std::int64_t>(head) * task.tokens + first_token + row] =
            softmax.greatest[i][half] * task.scale + logf(total);
      }
    }
  }
  o.template store<T>(factor, q, warp_row, task.o + (first_token + warp_row) * task.o_stride + head * task.head_dim,
                      task.o_stride, tile.length - tile.first - warp_row, task.head_dim);
}

}  // namespace qshard::optimized
