#pragma once

#include <cmath>
#include <cstdint>

#include "optimized/attention/attention_delta.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

// One query token a row against a cache of keys and values: bound by reading the cache, which is read once for
// kDecodeHeads query heads. A thread block has one part of one key/value head's cache of one row.
namespace qshard::optimized {

inline constexpr int kDecodeThreads = 128;
inline constexpr int kDecodeHeads = 8;  // query heads of a group that one pass serves

template <typename T>
struct DecodeTask {
  const T* q;
  const T* keys;  // [rows, capacity, kv_heads, head_dim]
  const T* values;
  const std::int32_t* lengths;
  T* o;
  float* partials;  // [rows, heads, parts, 2 + head_dim]: greatest score, sum of exp(score - greatest), weighted values
  int heads;
  int kv_heads;
  int head_dim;
  int window;
  int capacity;
  int part;  // tokens of a part
  int parts;
  std::int64_t q_stride;
  std::int64_t o_stride;
  float scale;
};

/// Positions [begin, end) of part `part` that the row's query sees.
template <typename T>
__device__ __forceinline__ int2 decode_range(const DecodeTask<T>& task, int length, int part) {
  const int oldest = task.window == 0 || length < task.window ? 0 : length - task.window;
  return {max(oldest, part * task.part), min(length, (part + 1) * task.part)};
}

template <int kDim>
struct DecodeTiling {
  static constexpr int kKeys = kDim <= 128 ? 64 : 32;  // of a step
  static constexpr int kStride = kDim + 1;             // rows begin in different banks
  static constexpr int kTileFloats = kKeys * kStride;
  static constexpr int kScoreThreads = kDecodeThreads / kKeys;  // threads that share the heads of a key
  static constexpr int kColumnThreads = kDim < kDecodeThreads ? kDim : kDecodeThreads;
  static constexpr int kColumnShares = kDecodeThreads / kColumnThreads;  // threads that share the heads of a column
  static constexpr int kOwnColumns = kDim / kColumnThreads;
  static constexpr int kOwnHeads = kDecodeHeads / kColumnShares;

  struct Shared {
    float keys[kTileFloats];
    float values[kTileFloats];
    float q[kDecodeHeads][kDim];  // times scale
    float weights[kKeys][kDecodeHeads];
    float greatest[kDecodeHeads];
    float sum[kDecodeHeads];
    float correction[kDecodeHeads];
  };
};

/// By the whole block: the keys' (or values') rows of one step as floats, zeros beyond `present` and head_dim.
template <int kDim, int kWidth, typename T>
__device__ __forceinline__ void load_decode_tile(float* tile, const T* from, std::int64_t stride, int present,
                                                 int head_dim) {
  using Tiling = DecodeTiling<kDim>;
  constexpr int kPieces = kDim / kWidth;
#pragma unroll 8
  for (auto i = static_cast<int>(threadIdx.x); i < Tiling::kKeys * kPieces; i += kDecodeThreads) {
    const int row = i / kPieces;
    const int column = i % kPieces * kWidth;
    float values[kWidth] = {};
    if (row < present && column < head_dim) load_floats(from + row * stride + column, values);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) tile[row * Tiling::kStride + column + j] = values[j];
  }
}

/// grid: (parts, kv_heads, rows). kWidth elements of the caches are read at once: see load_floats().
template <typename T, int kDim, int kWidth>
__global__ __launch_bounds__(kDecodeThreads) void decode_part(DecodeTask<T> task) {
  begin_early_kernel();
  using Tiling = DecodeTiling<kDim>;
  constexpr int kKeys = Tiling::kKeys;
  extern __shared__ __align__(128) std::uint8_t shared_memory[];
  auto& shared = *reinterpret_cast<typename Tiling::Shared*>(shared_memory);
  const auto part = static_cast<int>(blockIdx.x);
  const auto kv_head = static_cast<int>(blockIdx.y);
  const auto row = static_cast<int>(blockIdx.z);
  const int2 range = decode_range(task, task.lengths[row], part);
  if (range.x >= range.y) return;
  const int group = task.heads / task.kv_heads;
  const auto thread = static_cast<int>(threadIdx.x);
  const std::int64_t token_stride = static_cast<std::int64_t>(task.kv_heads) * task.head_dim;
  const std::int64_t cache = row * task.capacity * token_stride + kv_head * task.head_dim;

  for (int first = 0; first < group; first += kDecodeHeads) {
    const int heads = min(kDecodeHeads, group - first);
    const int first_head = kv_head * group + first;
    __syncthreads();
    for (int i = thread; i < kDecodeHeads * kDim; i += kDecodeThreads) {
      const int head = i / kDim;
      const int column = i % kDim;
      const bool inside = head < heads && column < task.head_dim;
      shared.q[head][column] =
          inside ? task.scale * to_float(task.q[row * task.q_stride + (first_head + head) * task.head_dim + column])
                 : 0.0F;
    }
    if (thread < kDecodeHeads) {
      shared.greatest[thread] = -INFINITY;
      shared.sum[thread] = 0.0F;
    }
    float o[Tiling::kOwnHeads][Tiling::kOwnColumns] = {};
    for (int key = range.x; key < range.y; key += kKeys) {
      __syncthreads();
      const std::int64_t from = cache + key * token_stride;
      load_decode_tile<kDim, kWidth>(shared.keys, task.keys + from, token_stride, range.y - key, task.head_dim);
      load_decode_tile<kDim, kWidth>(shared.values, task.values + from, token_stride, range.y - key, task.head_dim);
      __syncthreads();

      // Scores: a thread has one key and every kScoreThreads-th head.
      const int own_key = thread % kKeys;
      float scores[kDecodeHeads / Tiling::kScoreThreads] = {};
#pragma unroll 8
      for (int c = 0; c < kDim; ++c) {
        const float k = shared.keys[own_key * Tiling::kStride + c];
#pragma unroll
        for (int i = 0; i < kDecodeHeads / Tiling::kScoreThreads; ++i) {
          scores[i] = fmaf(k, shared.q[thread / kKeys + i * Tiling::kScoreThreads][c], scores[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kDecodeHeads / Tiling::kScoreThreads; ++i) {
        shared.weights[own_key][thread / kKeys + i * Tiling::kScoreThreads] =
            key + own_key < range.y ? scores[i] : -INFINITY;
      }
      __syncthreads();

      // Softmax: a warp has every fourth head.
      for (int head = thread / 32; head < heads; head += kDecodeThreads / 32) {
        float most = shared.greatest[head];
        for (int i = thread % 32; i < kKeys; i += 32) most = fmaxf(most, shared.weights[i][head]);
#pragma unroll
        for (int other = 16; other > 0; other /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, other));
        float sum = 0.0F;
        for (int i = thread % 32; i < kKeys; i += 32) {
          const float weight = expf(shared.weights[i][head] - most);
          shared.weights[i][head] = weight;
          sum += weight;
        }
#pragma unroll
        for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, other);
        if (thread % 32 == 0) {
          const float correction = expf(shared.greatest[head] - most);
          shared.sum[head] = fmaf(shared.sum[head], correction, sum);
          shared.greatest[head] = most;
          shared.correction[head] = correction;
        }
      }
      __syncthreads();

      // Weighted values: a thread has one column, or two, and all heads or half of them.
      const int own_head = thread / Tiling::kColumnThreads * Tiling::kOwnHeads;
      float sums[Tiling::kOwnHeads][Tiling::kOwnColumns] = {};
#pragma unroll 4
      for (int k = 0; k < kKeys; ++k) {
#pragma unroll
        for (int j = 0; j < Tiling::kOwnColumns; ++j) {
          const float value = shared.values[k * Tiling::kStride + thread % Tiling::kColumnThreads + j * kDecodeThreads];
#pragma unroll
          for (int i = 0; i < Tiling::kOwnHeads; ++i) {
            sums[i][j] = fmaf(shared.weights[k][own_head + i], value, sums[i][j]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < Tiling::kOwnHeads; ++i) {
#pragma unroll
        for (int j = 0; j < Tiling::kOwnColumns; ++j) {
          o[i][j] = fmaf(o[i][j], shared.correction[own_head + i], sums[i][j]);
        }
      }
    }

    const std::int64_t partial = 2 + task.head_dim;
    float* to =
        task.partials + ((static_cast<std::int64_t>(row) * task.heads + first_head) * task.parts + part) * partial;
    const std::int64_t head_stride = task.parts * partial;
    if (thread < heads) {
      to[thread * head_stride] = shared.greatest[thread];
      to[thread * head_stride + 1] = shared.sum[thread];
    }
#pragma unroll
    for (int i = 0; i < Tiling::kOwnHeads; ++i) {
      const int head = thread / Tiling::kColumnThreads * Tiling::kOwnHeads + i;
#pragma unroll
      for (int j = 0; j < Tiling::kOwnColumns; ++j) {
        const int column = thread % Tiling::kColumnThreads + j * kDecodeThreads;
        if (head < heads && column < task.head_dim) to[head * head_stride + 2 + column] = o[i][j];
      }
    }
  }
}

/// Adds the parts in their order. grid: (heads, rows); a thread for every column.
template <typename T>
__global__ void decode_combine(DecodeTask<T> task) {
  begin_early_kernel();
  const auto head = static_cast<int>(blockIdx.x);
  const auto row = static_cast<int>(blockIdx.y);
  const int length = task.lengths[row];
  const std::int64_t partial = 2 + task.head_dim;
  const float* from = task.partials + (static_cast<std::int64_t>(row) * task.heads + head) * task.parts * partial;
  const auto is_empty = [&](int part) {
    const int2 range = decode_range(task, length, part);
    return range.x >= range.y;
  };
  float most = -INFINITY;
  for (int part = 0; part < task.parts; ++part) {
    if (!is_empty(part)) most = fmaxf(most, from[part * partial]);
  }
  const auto column = static_cast<int>(threadIdx.x);
  if (column >= task.head_dim) return;
  float total = 0.0F;
  float sum = 0.0F;
  for (int part = 0; part < task.parts; ++part) {
    if (is_empty(part)) continue;
    const float factor = expf(from[part * partial] - most);
    total = fmaf(from[part * partial + 1], factor, total);
    sum = fmaf(from[part * partial + 2 + column], factor, sum);
  }
  task.o[row * task.o_stride + head * task.head_dim + column] = from_float<T>(length > 0 ? sum / total : 0.0F);
}

}  // namespace qshard::optimized
