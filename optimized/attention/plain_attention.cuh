#pragma once

#include <cmath>
#include <cstdint>

#include "optimized/attention/attention_task.h"
#include "optimized/attention/row_tiles.h"
#include "optimized/device_math.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

// Attention with plain additions and multiplications in float, for every GPU, dtype, head_dim up to 256 and alignment:
// nothing is rounded between the inputs and the results. The same walk as on tensor cores, in tiles of kRows tokens.
namespace qshard::optimized {

/// Threads 4 * r to 4 * r + 3 of a block work on row r of its tile: thread 4 * r + t has the columns t, t + 4, ... of
/// sums over head_dim, and the same of scores.
template <int kDim>
struct PlainTiling {
  static constexpr int kRows = kDim <= 128 ? 32 : 16;
  static constexpr int kLanes = 4;
  static constexpr int kThreads = kRows * kLanes;
  static constexpr int kStride = kDim + 1;  // rows begin in different banks
  static constexpr int kTileFloats = kRows * kStride;
  static constexpr int kScoreStride = kRows + 1;
  static constexpr int kScoreFloats = kRows * kScoreStride;
  static constexpr int kOwnScores = kRows / kLanes;
  static constexpr int kOwnColumns = kDim / kLanes;
  static constexpr int kForwardBytes = 4 * (2 * kTileFloats + kScoreFloats);
  static constexpr int kQueryGradientBytes = 4 * (4 * kTileFloats + kScoreFloats);
  static constexpr int kKeyGradientBytes = 4 * (4 * kTileFloats + 2 * kScoreFloats + 2 * kRows);
};

/// By the whole block: rows of head_dim elements, `stride` apart, as floats; rows from `present` on, and what a row has
/// beyond head_dim, become zeros.
template <int kDim, typename T>
__device__ __forceinline__ void load_plain_tile(float* tile, const T* from, std::int64_t stride, int present,
                                                int head_dim) {
  using Tiling = PlainTiling<kDim>;
  for (auto i = static_cast<int>(threadIdx.x); i < Tiling::kRows * kDim; i += Tiling::kThreads) {
    const int row = i / kDim;
    const int column = i % kDim;
    const bool inside = row < present && column < head_dim;
    tile[row * Tiling::kStride + column] = inside ? to_float(from[row * stride + column]) : 0.0F;
  }
}

/// products[i] = row `row` of a times row lane + 4 * i of b.
template <int kDim>
__device__ __forceinline__ void multiply_rows(const float* a, int row, const float* b, int lane,
                                              float (&products)[PlainTiling<kDim>::kOwnScores]) {
  using Tiling = PlainTiling<kDim>;
#pragma unroll
  for (float& product : products) product = 0.0F;
  for (int c = 0; c < kDim; ++c) {
    const float left = a[row * Tiling::kStride + c];
#pragma unroll
    for (int i = 0; i < Tiling::kOwnScores; ++i) {
      products[i] = fmaf(left, b[(lane + Tiling::kLanes * i) * Tiling::kStride + c], products[i]);
    }
  }
}

/// sums[i] = factor * sums[i] + row `row` of weights times column lane + 4 * i of b. The tile's own sum is made first:
/// its error then does not grow with the number of tiles.
template <int kDim>
__device__ __forceinline__ void add_weighted_rows(const float* weights, int row, const float* b, int lane, float factor,
                                                  float (&sums)[PlainTiling<kDim>::kOwnColumns]) {
  using Tiling = PlainTiling<kDim>;
#pragma unroll
  for (int i = 0; i < Tiling::kOwnColumns; ++i) {
    float sum = 0.0F;
#pragma unroll 4  // Unrolled wholly, it takes the compiler minutes.
    for (int j = 0; j < Tiling::kRows; ++j) {
      sum = fmaf(weights[row * Tiling::kScoreStride + j], b[j * Tiling::kStride + lane + Tiling::kLanes * i], sum);
    }
    sums[i] = fmaf(sums[i], factor, sum);
  }
}

/// to[i] = factor * sums, for the thread's columns below head_dim.
template <typename T, int kColumns>
__device__ __forceinline__ void store_plain_row(const float (&sums)[kColumns], float factor, T* to, int lane,
                                                int head_dim) {
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int column = lane + 4 * i;
    if (column < head_dim) to[column] = from_float<T>(sums[i] * factor);
  }
}

/// grid as of tensor_core_forward().
template <typename T, int kDim>
__global__ __launch_bounds__(PlainTiling<kDim>::kThreads) void plain_forward(AttentionTask<T> task) {
  begin_early_kernel();
  using Tiling = PlainTiling<kDim>;
  extern __shared__ __align__(128) std::uint8_t shared_memory[];
  auto* q = reinterpret_cast<float*>(shared_memory);
  float* kv = q + Tiling::kTileFloats;
  float* p = kv + Tiling::kTileFloats;
  const auto head = static_cast<int>(blockIdx.x);
  const int kv_head = head / (task.heads / task.kv_heads);
  const RowTile tile =
      tile_of_slot(task.offsets, task.rows, Tiling::kRows, static_cast<int>(gridDim.y - 1 - blockIdx.y));
  if (!tile.exists()) return;
  const PositionRange keys = keys_of_queries(tile, Tiling::kRows, task.window);
  const std::int64_t first_token = tile.begin + tile.first;
  const auto row = static_cast<int>(threadIdx.x) / Tiling::kLanes;
  const auto lane = static_cast<int>(threadIdx.x) % Tiling::kLanes;
  load_plain_tile<kDim>(q, task.q + first_token * task.q_stride + head * task.head_dim, task.q_stride,
                        tile.length - tile.first, task.head_dim);

  float greatest = -INFINITY;
  float total = 0.0F;
  float o[Tiling::kOwnColumns] = {};
  for (int key = keys.begin; key < keys.end; key += Tiling::kRows) {
    const std::int64_t from = (tile.begin + key) * task.kv_stride + kv_head * task.head_dim;
    __syncthreads();
    load_plain_tile<kDim>(kv, task.k + from, task.kv_stride, keys.end - key, task.head_dim);
    __syncthreads();
    float scores[Tiling::kOwnScores];
    multiply_rows<kDim>(q, row, kv, lane, scores);
    float most = greatest;
#pragma unroll
    for (int i = 0; i < Tiling::kOwnScores; ++i) {
      const bool seen = sees(tile.first + row, key + lane + Tiling::kLanes * i, task.window);
      scores[i] = seen ? scores[i] : -INFINITY;
      most = fmaxf(most, scores[i]);
    }
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, 2));
    const float base = most == -INFINITY ? 0.0F : most;  // a row that has seen no key yet
    const float correction = expf((greatest - base) * task.scale);
    greatest = most;
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < Tiling::kOwnScores; ++i) {
      const float weight = expf((scores[i] - base) * task.scale);
      sum += weight;
      p[row * Tiling::kScoreStride + lane + Tiling::kLanes * i] = weight;
    }
    total = fmaf(total, correction, sum);
    __syncthreads();
    load_plain_tile<kDim>(kv, task.v + from, task.kv_stride, keys.end - key, task.head_dim);
    __syncthreads();
    add_weighted_rows<kDim>(p, row, kv, lane, correction, o);
  }
  total += __shfl_xor_sync(0xFFFFFFFFU, total, 1);
  total += __shfl_xor_sync(0xFFFFFFFFU, total, 2);
  if (tile.first + row >= tile.length) return;
  if (lane == 0) {
    task.lse[static_cast<std::int64_t>(head) * task.tokens + first_token + row] = greatest * task.scale + logf(total);
  }
  store_plain_row(o, 1.0F / total, task.o + (first_token + row) * task.o_stride + head * task.head_dim, lane,
                  task.head_dim);
}

/// dq. grid as of tensor_core_query_gradient().
template <typename T, int kDim>
__global__ __launch_bounds__(PlainTiling<kDim>::kThreads) void plain_query_gradient(AttentionTask<T> task) {
  begin_early_kernel();
  using Tiling = PlainTiling<kDim>;
  extern __shared__ __align__(128) std::uint8_t shared_memory[];
  auto* q = reinterpret_cast<float*>(shared_memory);
  float* dout = q + Tiling::kTileFloats;
  float* k = dout + Tiling::kTileFloats;
  float* v = k + Tiling::kTileFloats;
  float* ds = v + Tiling::kTileFloats;
  const auto head = static_cast<int>(blockIdx.x);
  const int kv_head = head / (task.heads / task.kv_heads);
  const RowTile tile =
      tile_of_slot(task.offsets, task.rows, Tiling::kRows, static_cast<int>(gridDim.y - 1 - blockIdx.y));
  if (!tile.exists()) return;
  const PositionRange keys = keys_of_queries(tile, Tiling::kRows, task.window);
  const std::int64_t first_token = tile.begin + tile.first;
  const int queries = tile.length - tile.first;
  const auto row = static_cast<int>(threadIdx.x) / Tiling::kLanes;
  const auto lane = static_cast<int>(threadIdx.x) % Tiling::kLanes;
  load_plain_tile<kDim>(q, task.q + first_token * task.q_stride + head * task.head_dim, task.q_stride, queries,
                        task.head_dim);
  load_plain_tile<kDim>(dout, task.dout + first_token * task.o_stride + head * task.head_dim, task.o_stride, queries,
                        task.head_dim);
  const std::int64_t statistic = static_cast<std::int64_t>(head) * task.tokens + first_token + row;
  const float lse = row < queries ? task.lse[statistic] : 0.0F;
  const float delta = row < queries ? task.delta[statistic] : 0.0F;

  float dq[Tiling::kOwnColumns] = {};
  for (int key = keys.begin; key < keys.end; key += Tiling::kRows) {
    const std::int64_t from = (tile.begin + key) * task.kv_stride + kv_head * task.head_dim;
    __syncthreads();
    load_plain_tile<kDim>(k, task.k + from, task.kv_stride, keys.end - key, task.head_dim);
    load_plain_tile<kDim>(v, task.v + from, task.kv_stride, keys.end - key, task.head_dim);
    __syncthreads();
    float scores[Tiling::kOwnScores];
    float dp[Tiling::kOwnScores];
    multiply_rows<kDim>(q, row, k, lane, scores);
    multiply_rows<kDim>(dout, row, v, lane, dp);
#pragma unroll
    for (int i = 0; i < Tiling::kOwnScores; ++i) {
      const int column = lane + Tiling::kLanes * i;
      const bool seen = sees(tile.first + row, key + column, task.window);
      const float p = seen ? expf(scores[i] * task.scale - lse) : 0.0F;
      ds[row * Tiling::kScoreStride + column] = p * (dp[i] - delta);
    }
    __syncwarp();
    add_weighted_rows<kDim>(ds, row, k, lane, 1.0F, dq);
  }
  if (row >= queries) return;
  store_plain_row(dq, task.scale, task.dq + (first_token + row) * task.q_stride + head * task.head_dim, lane,
                  task.head_dim);
}

/// dk and dv. grid: (kv_heads, tile_slots()).
template <typename T, int kDim>
__global__ __launch_bounds__(PlainTiling<kDim>::kThreads) void plain_key_gradient(AttentionTask<T> task) {
  begin_early_kernel();
  using Tiling = PlainTiling<kDim>;
  extern __shared__ __align__(128) std::uint8_t shared_memory[];
  auto* k = reinterpret_cast<float*>(shared_memory);
  float* v = k + Tiling::kTileFloats;
  float* q = v + Tiling::kTileFloats;
  float* dout = q + Tiling::kTileFloats;
  float* p = dout + Tiling::kTileFloats;
  float* ds = p + Tiling::kScoreFloats;
  float* lse = ds + Tiling::kScoreFloats;
  float* delta = lse + Tiling::kRows;
  const auto kv_head = static_cast<int>(blockIdx.x);
  const int group = task.heads / task.kv_heads;
  const RowTile tile = tile_of_slot(task.offsets, task.rows, Tiling::kRows, static_cast<int>(blockIdx.y));
  if (!tile.exists()) return;
  const PositionRange queries = queries_of_keys(tile, Tiling::kRows, task.window);
  const std::int64_t first_token = tile.begin + tile.first;
  const int present = tile.length - tile.first;
  const auto row = static_cast<int>(threadIdx.x) / Tiling::kLanes;
  const auto lane = static_cast<int>(threadIdx.x) % Tiling::kLanes;
  const std::int64_t from = first_token * task.kv_stride + kv_head * task.head_dim;
  load_plain_tile<kDim>(k, task.k + from, task.kv_stride, present, task.head_dim);
  load_plain_tile<kDim>(v, task.v + from, task.kv_stride, present, task.head_dim);

  float dk[Tiling::kOwnColumns] = {};
  float dv[Tiling::kOwnColumns] = {};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int query = queries.begin; query < queries.end; query += Tiling::kRows) {
      const std::int64_t token = tile.begin + query;
      const int count = queries.end - query;
      __syncthreads();
      load_plain_tile<kDim>(q, task.q + token * task.q_stride + head * task.head_dim, task.q_stride, count,
                            task.head_dim);
      load_plain_tile<kDim>(dout, task.dout + token * task.o_stride + head * task.head_dim, task.o_stride, count,
                            task.head_dim);
      const auto i = static_cast<int>(threadIdx.x);
      if (i < Tiling::kRows) {
        const std::int64_t statistic = static_cast<std::int64_t>(head) * task.tokens + token + i;
        lse[i] = i < count ? task.lse[statistic] : 0.0F;
        delta[i] = i < count ? task.delta[statistic] : 0.0F;
      }
      __syncthreads();
      float scores[Tiling::kOwnScores];
      float dp[Tiling::kOwnScores];
      multiply_rows<kDim>(k, row, q, lane, scores);
      multiply_rows<kDim>(v, row, dout, lane, dp);
#pragma unroll
      for (int j = 0; j < Tiling::kOwnScores; ++j) {
        const int column = lane + Tiling::kLanes * j;
        const bool seen = sees(query + column, tile.first + row, task.window);
        const float weight = seen ? expf(scores[j] * task.scale - lse[column]) : 0.0F;
        p[row * Tiling::kScoreStride + column] = weight;
        ds[row * Tiling::kScoreStride + column] = weight * (dp[j] - delta[column]);
      }
      __syncwarp();
      add_weighted_rows<kDim>(p, row, dout, lane, 1.0F, dv);
      add_weighted_rows<kDim>(ds, row, q, lane, 1.0F, dk);
    }
  }
  if (row >= present) return;
  const std::int64_t at = (first_token + row) * task.kv_stride + kv_head * task.head_dim;
  store_plain_row(dk, task.scale, task.dk + at, lane, task.head_dim);
  store_plain_row(dv, 1.0F, task.dv + at, lane, task.head_dim);
}

}  // namespace qshard::optimized
