#pragma once

#include <cmath>
#include <cstdint>

#include "optimized/attention/attention_delta.cuh"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/prefetch.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/rotate.cuh"

// One query token a row against a cache of keys and values: bound by reading the cache, which is read once for
// kHeads query heads of a group, 4 or 8. A thread block has one part of one key/value head's cache of one row.
namespace qshard::optimized {

inline constexpr int kDecodeThreads = 128;

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
  const float* cos;  // [positions, head_dim / 2]; null: queries, keys and values are ready
  const float* sin;
  T* new_keys;  // the caches, for the new token's
  T* new_values;
};

/// Positions [begin, end) of part `part` that the row's query sees.
template <typename T>
__device__ __forceinline__ int2 decode_range(const DecodeTask<T>& task, int length, int part) {
  const int oldest = task.window == 0 || length < task.window ? 0 : length - task.window;
  return {max(oldest, part * task.part), min(length, (part + 1) * task.part)};
}

/// Where a pass leaves what it found of one part.
template <typename T>
class DecodePartial {
 public:
  __device__ DecodePartial(const DecodeTask<T>& task, int row, int first_head, int part)
      : stride_(task.parts * (2 + static_cast<std::int64_t>(task.head_dim))),
        to_(task.partials + (static_cast<std::int64_t>(row) * task.heads + first_head) * stride_ +
            part * (2 + static_cast<std::int64_t>(task.head_dim))) {}

  __device__ void store_sum(int head, float greatest, float sum) const {
    to_[head * stride_] = greatest;
    to_[head * stride_ + 1] = sum;
  }
  __device__ void store_column(int head, int column, float value) const { to_[head * stride_ + 2 + column] = value; }

 private:
  std::int64_t stride_;
  float* to_;
};

/// kHeads: query heads that one pass serves.
template <int kDim, int kHeads>
struct DecodeTiling {
  static constexpr int kKeys = kDim <= 128 ? 64 : 32;  // of a step
  static constexpr int kStride = kDim + 1;             // rows begin in different banks
  static constexpr int kTileFloats = kKeys * kStride;
  static constexpr int kScoreThreads = kDecodeThreads / kKeys;  // threads that share the heads of a key
  static constexpr int kColumnThreads = kDim < kDecodeThreads ? kDim : kDecodeThreads;
  static constexpr int kColumnShares = kDecodeThreads / kColumnThreads;  // threads that share the heads of a column
  static constexpr int kOwnColumns = kDim / kColumnThreads;
  static constexpr int kOwnHeads = kHeads / kColumnShares;

  struct Shared {
    float keys[kTileFloats];
    float values[kTileFloats];
    float q[kHeads][kDim];  // times scale
    float weights[kKeys][kHeads];
    float greatest[kHeads];
    float sum[kHeads];
    float correction[kHeads];
  };
};

/// By the whole block: the keys' (or values') rows of one step as floats, zeros beyond `present` and head_dim.
template <typename Tiling, int kDim, int kWidth, typename T>
__device__ __forceinline__ void load_decode_tile(float* tile, const T* from, std::int64_t stride, int present,
                                                 int head_dim) {
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

/// Scores of one step become weights, relative to the greatest score so far. A warp has every fourth head.
template <int kKeys, typename Shared>
__device__ __forceinline__ void softmax_step(Shared& shared, int heads) {
  for (int head = static_cast<int>(threadIdx.x) / 32; head < heads; head += kDecodeThreads / 32) {
    float most = shared.greatest[head];
    for (int i = static_cast<int>(threadIdx.x) % 32; i < kKeys; i += 32) most = fmaxf(most, shared.weights[i][head]);
#pragma unroll
    for (int other = 16; other > 0; other /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFU, most, other));
    float sum = 0.0F;
    for (int i = static_cast<int>(threadIdx.x) % 32; i < kKeys; i += 32) {
      const float weight = expf(shared.weights[i][head] - most);
      shared.weights[i][head] = weight;
      sum += weight;
    }
#pragma unroll
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, other);
    if (static_cast<int>(threadIdx.x) % 32 == 0) {
      const float correction = expf(shared.greatest[head] - most);
      shared.sum[head] = fmaf(shared.sum[head], correction, sum);
      shared.greatest[head] = most;
      shared.correction[head] = correction;
    }
  }
}

/// grid: (parts, kv_heads, rows). kWidth elements of the caches are read at once: see load_floats().
template <typename T, int kDim, int kHeads, int kWidth>
__global__ __launch_bounds__(kDecodeThreads) void decode_part(DecodeTask<T> task) {
  begin_early_kernel();
  using Tiling = DecodeTiling<kDim, kHeads>;
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

  for (int first = 0; first < group; first += kHeads) {
    const int heads = min(kHeads, group - first);
    const int first_head = kv_head * group + first;
    __syncthreads();
    for (int i = thread; i < kHeads * kDim; i += kDecodeThreads) {
      const int head = i / kDim;
      const int column = i % kDim;
      const bool inside = head < heads && column < task.head_dim;
      shared.q[head][column] =
          inside ? task.scale * to_float(task.q[row * task.q_stride + (first_head + head) * task.head_dim + column])
                 : 0.0F;
    }
    if (thread < kHeads) {
      shared.greatest[thread] = -INFINITY;
      shared.sum[thread] = 0.0F;
    }
    float o[Tiling::kOwnHeads][Tiling::kOwnColumns] = {};
    for (int key = range.x; key < range.y; key += kKeys) {
      __syncthreads();
      const std::int64_t from = cache + key * token_stride;
      load_decode_tile<Tiling, kDim, kWidth>(shared.keys, task.keys + from, token_stride, range.y - key, task.head_dim);
      load_decode_tile<Tiling, kDim, kWidth>(shared.values, task.values + from, token_stride, range.y - key,
                                             task.head_dim);
      __syncthreads();

      // Scores: a thread has one key and every kScoreThreads-th head.
      const int own_key = thread % kKeys;
      float scores[kHeads / Tiling::kScoreThreads] = {};
#pragma unroll 8
      for (int c = 0; c < kDim; ++c) {
        const float k = shared.keys[own_key * Tiling::kStride + c];
#pragma unroll
        for (int i = 0; i < kHeads / Tiling::kScoreThreads; ++i) {
          scores[i] = fmaf(k, shared.q[thread / kKeys + i * Tiling::kScoreThreads][c], scores[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kHeads / Tiling::kScoreThreads; ++i) {
        shared.weights[own_key][thread / kKeys + i * Tiling::kScoreThreads] =
            key + own_key < range.y ? scores[i] : -INFINITY;
      }
      __syncthreads();

      softmax_step<kKeys>(shared, heads);
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

    const DecodePartial<T> to(task, row, first_head, part);
    if (thread < heads) to.store_sum(thread, shared.greatest[thread], shared.sum[thread]);
#pragma unroll
    for (int i = 0; i < Tiling::kOwnHeads; ++i) {
      const int head = thread / Tiling::kColumnThreads * Tiling::kOwnHeads + i;
#pragma unroll
      for (int j = 0; j < Tiling::kOwnColumns; ++j) {
        const int column = thread % Tiling::kColumnThreads + j * kDecodeThreads;
        if (head < heads && column < task.head_dim) to.store_column(head, column, o[i][j]);
      }
    }
  }
}

/// What decode_part_in_registers() shares. kDim: head_dim, 64 or 128.
template <int kDim, int kHeads>
struct RegisterDecoding {
  static constexpr int kKeys = 64;
  static constexpr int kHalf = kDim / 2;
  static constexpr int kHalfStride = kHalf + 4;  // so that both halves of q are read at once
  static constexpr int kPieces = kDim / 8;
  static constexpr int kKeyGroups = kDecodeThreads / kPieces;
  static constexpr int kOwnKeys = kKeys / kKeyGroups;
  static constexpr int kDecodeWarps = kDecodeThreads / 32;

  struct Shared {
    float q[kHeads][2 * kHalfStride];  // times scale
    float weights[kKeys][kHeads];
    float greatest[kHeads];
    float sum[kHeads];
    float correction[kHeads];
    float o[kDecodeWarps][kHeads][kDim];
  };
};

/// The pair of elements `column` and kDim / 2 + `column` of a head, rotated as position says where the task rotates.
template <int kDim, typename T>
__device__ __forceinline__ void load_rotated(const DecodeTask<T>& task, const T* head, int column, int position,
                                             ElementVector<T, 1>& first, ElementVector<T, 1>& second) {
  constexpr int kHalf = kDim / 2;
  first = vector_at<1>(head, column);
  second = vector_at<1>(head, column + kHalf);
  if (task.cos == nullptr) return;
  const std::int64_t at = static_cast<std::int64_t>(position) * kHalf + column;
  const float cos[1] = {task.cos[at]};
  const float sin[1] = {task.sin[at]};
  rotate(cos, sin, first, second);
}

/// The new token's key and value go to the caches. By the whole block, which sees them afterwards.
template <int kDim, typename T>
__device__ __forceinline__ void store_new_token(const DecodeTask<T>& task, int row, int kv_head, int position,
                                                std::int64_t in_cache) {
  static_assert(kDim <= kDecodeThreads);
  const auto thread = static_cast<int>(threadIdx.x);
  const T* key = task.q + row * task.q_stride + (task.heads + kv_head) * kDim;
  if (thread < kDim / 2) {
    ElementVector<T, 1> first;
    ElementVector<T, 1> second;
    load_rotated<kDim>(task, key, thread, position, first, second);
    vector_at<1>(task.new_keys + in_cache, thread) = first;
    vector_at<1>(task.new_keys + in_cache, thread + kDim / 2) = second;
  }
  if (thread < kDim) task.new_values[in_cache + thread] = key[task.kv_heads * kDim + thread];
  __syncthreads();
}

/// Brings the first 64 keys and values of the block's part to the L2 cache. The length that is read for it may be one
/// of before; nothing else depends on it.
template <typename T>
__device__ __forceinline__ void prefetch_part(const DecodeTask<T>& task) {
  constexpr int kLine = 128;  // bytes
  const std::int64_t token_stride = static_cast<std::int64_t>(task.kv_heads) * task.head_dim;
  const int first = static_cast<int>(blockIdx.x) * task.part;
  const int end = min(static_cast<const volatile std::int32_t*>(task.lengths)[blockIdx.z], task.capacity);
  const int lines = task.head_dim * static_cast<int>(sizeof(T)) / kLine;
  for (auto i = static_cast<int>(threadIdx.x); i < 64 * lines; i += kDecodeThreads) {
    const int token = first + i / lines;
    if (token >= end) break;
    const std::int64_t at = (blockIdx.z * static_cast<std::int64_t>(task.capacity) + token) * token_stride +
                            blockIdx.y * static_cast<std::int64_t>(task.head_dim) +
                            i % lines * (kLine / static_cast<int>(sizeof(T)));
    prefetch_to_l2(task.keys + at);
    prefetch_to_l2(task.values + at);
  }
}

/// The same for caches whose rows can be read 16 bytes at once, with all that a step reads on its way at once: a thread
/// has half of one key, and of the values eight columns of every kKeyGroups-th key. The columns' sums are added over
/// threads, then over warps, in their order. grid as decode_part().
template <typename T, int kDim, int kHeads>
__global__ __launch_bounds__(kDecodeThreads) void decode_part_in_registers(DecodeTask<T> task) {
  trigger_programmatic_launch_completion();
  prefetch_part(task);
  grid_dependency_synchronize();
  using Tiling = RegisterDecoding<kDim, kHeads>;
  constexpr int kKeys = Tiling::kKeys;
  constexpr int kPieces = Tiling::kPieces;
  __shared__ typename Tiling::Shared shared;
  const auto part = static_cast<int>(blockIdx.x);
  const auto kv_head = static_cast<int>(blockIdx.y);
  const auto row = static_cast<int>(blockIdx.z);
  const int position = task.lengths[row] - 1;
  const int2 range = decode_range(task, position + 1, part);
  if (range.x >= range.y) return;
  const int group = task.heads / task.kv_heads;
  const auto thread = static_cast<int>(threadIdx.x);
  const int own_key = thread / 2;
  const int own_half = thread % 2;
  const int piece = thread % kPieces;
  const std::int64_t token_stride = static_cast<std::int64_t>(task.kv_heads) * kDim;
  const std::int64_t cache = row * task.capacity * token_stride + kv_head * kDim;
  if (task.cos != nullptr && range.y == position + 1) {
    store_new_token<kDim>(task, row, kv_head, position, cache + position * token_stride);
  }

  for (int first = 0; first < group; first += kHeads) {
    const int heads = min(kHeads, group - first);
    const int first_head = kv_head * group + first;
    __syncthreads();
    for (int i = thread; i < kHeads * Tiling::kHalf; i += kDecodeThreads) {
      const int head = i / Tiling::kHalf;
      const int column = i % Tiling::kHalf;
      ElementVector<T, 1> low{};
      ElementVector<T, 1> high{};
      if (head < heads) {
        load_rotated<kDim>(task, task.q + row * task.q_stride + (first_head + head) * kDim, column, position, low,
                           high);
      }
      shared.q[head][column] = task.scale * to_float(low.element[0]);
      shared.q[head][Tiling::kHalfStride + column] = task.scale * to_float(high.element[0]);
    }
    if (thread < kHeads) {
      shared.greatest[thread] = -INFINITY;
      shared.sum[thread] = 0.0F;
    }
    float o[kHeads][8] = {};
    for (int key = range.x; key < range.y; key += kKeys) {
      const T* const key_half = task.keys + cache + (key + own_key) * token_stride + own_half * Tiling::kHalf;
      const bool has_key = key + own_key < range.y;
      ElementVector<T, 8> keys[kPieces / 2];
#pragma unroll
      for (int i = 0; i < kPieces / 2; ++i) {
        keys[i] = has_key ? vector_at<8>(key_half, i) : ElementVector<T, 8>{};
      }
      ElementVector<T, 8> values[Tiling::kOwnKeys];
#pragma unroll
      for (int i = 0; i < Tiling::kOwnKeys; ++i) {
        const int at = key + thread / kPieces + i * Tiling::kKeyGroups;
        values[i] = at < range.y ? vector_at<8>(task.values + cache + at * token_stride, piece) : ElementVector<T, 8>{};
      }
      __syncthreads();

      float scores[kHeads] = {};
#pragma unroll
      for (int i = 0; i < kPieces / 2; ++i) {
        float own[8];
        to_floats(keys[i], own);
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
          const float* const q = shared.q[head] + own_half * Tiling::kHalfStride + 8 * i;
#pragma unroll
          for (int e = 0; e < 8; ++e) scores[head] = fmaf(own[e], q[e], scores[head]);
        }
      }
#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
        scores[head] += __shfl_xor_sync(0xFFFFFFFFU, scores[head], 1);
        if (own_half == 0) shared.weights[own_key][head] = has_key ? scores[head] : -INFINITY;
      }
      __syncthreads();
      softmax_step<kKeys>(shared, heads);
      __syncthreads();

#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
        const float correction = shared.correction[head];
#pragma unroll
        for (int e = 0; e < 8; ++e) o[head][e] *= correction;
      }
#pragma unroll
      for (int i = 0; i < Tiling::kOwnKeys; ++i) {
        float own[8];
        to_floats(values[i], own);
        const float* const weights = shared.weights[thread / kPieces + i * Tiling::kKeyGroups];
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
#pragma unroll
          for (int e = 0; e < 8; ++e) o[head][e] = fmaf(weights[head], own[e], o[head][e]);
        }
      }
    }

#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
#pragma unroll
        for (int other = kPieces; other < 32; other *= 2) {
          o[head][e] += __shfl_xor_sync(0xFFFFFFFFU, o[head][e], other);
        }
        if (thread % 32 < kPieces) shared.o[thread / 32][head][8 * piece + e] = o[head][e];
      }
    }
    __syncthreads();
    const DecodePartial<T> to(task, row, first_head, part);
    if (thread < heads) to.store_sum(thread, shared.greatest[thread], shared.sum[thread]);
    if (thread < kDim) {
      for (int head = 0; head < heads; ++head) {
        float sum = 0.0F;
#pragma unroll
        for (int warp = 0; warp < Tiling::kDecodeWarps; ++warp) sum += shared.o[warp][head][thread];
        to.store_column(head, thread, sum);
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
