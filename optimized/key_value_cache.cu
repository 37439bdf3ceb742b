#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/key_value_cache.h"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/rotate.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 128;

template <typename T>
struct Caches {
  T* keys;
  T* values;
  std::int64_t token_elements;
  std::int64_t rows;
  std::int64_t capacity;

  /// Where a token's key and value begin; -1 outside the caches.
  [[nodiscard]] __device__ std::int64_t offset(std::int64_t row, std::int64_t position) const {
    if (row < 0 || row >= rows || position < 0 || position >= capacity) return -1;
    return (row * capacity + position) * token_elements;
  }
};

/// Thread block (t, b) has kThreads vectors of token t.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    store_kernel(const Caches<T> caches, const std::int32_t* row_of, const std::int32_t* positions,
                 std::int64_t first_row, const T* keys, const T* values, std::int64_t stride) {
  begin_early_kernel();
  const std::int64_t token = blockIdx.x;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.y * kThreads + threadIdx.x) * kCount;
  const std::int64_t to = caches.offset(first_row + row_of[token], positions[token]);
  if (at >= caches.token_elements || to < 0) return;
  vector_at<kCount>(caches.keys + to + at, 0) = vector_at<kCount>(keys + token * stride + at, 0);
  vector_at<kCount>(caches.values + to + at, 0) = vector_at<kCount>(values + token * stride + at, 0);
}

struct RotationTask {
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t half;  // head_dim / 2
  std::int64_t stride;
};

/// Thread block (b, r) has kThreads pairs of row r: those of its query heads, then of its key and value heads.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    rotate_and_store_kernel(const RotationTask task, const Caches<T> caches, const std::int32_t* positions,
                            const float* cos, const float* sin, T* qkv) {
  begin_early_kernel();
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t head = pair / task.half;
  const std::int64_t in_half = pair - head * task.half;
  const std::int64_t row = blockIdx.y;
  if (head >= task.heads + 2 * task.kv_heads) return;
  const std::int64_t position = positions[row];
  T* from = qkv + row * task.stride + head * 2 * task.half + in_half;
  auto first = vector_at<1>(from, 0);
  auto second = vector_at<1>(from + task.half, 0);
  const bool is_value = head >= task.heads + task.kv_heads;
  if (!is_value) {
    const float own_cos[1] = {cos[position * task.half + in_half]};
    const float own_sin[1] = {sin[position * task.half + in_half]};
    rotate(own_cos, own_sin, first, second);
  }
  T* to = from;
  if (head >= task.heads) {
    const std::int64_t in_cache = caches.offset(row, position);
    if (in_cache < 0) return;
    const std::int64_t kv_head = head - task.heads - (is_value ? task.kv_heads : 0);
    to = (is_value ? caches.values : caches.keys) + in_cache + kv_head * 2 * task.half + in_half;
  }
  vector_at<1>(to, 0) = first;
  vector_at<1>(to + task.half, 0) = second;
}

void check(const KeyValueCacheShape& shape, const void* key_cache, const void* value_cache) {
  check_floating(shape.dtype, "the dtype of the caches of keys and values");
  check_at_least(shape.rows, 1, "the number of rows of the caches of keys and values");
  check_at_least(shape.capacity, 1, "the capacity of the caches of keys and values");
  check_at_least(shape.kv_heads, 1, "the number of key/value heads");
  check_at_least(shape.head_dim, 2, "the head_dim of the caches of keys and values");
  check_multiple(shape.head_dim, 2, "the head_dim of the caches of keys and values");
  check_pointer(key_cache, size_of(shape.dtype), "the key cache");
  check_pointer(value_cache, size_of(shape.dtype), "the value cache");
}

template <typename T>
Caches<T> caches_of(const KeyValueCacheShape& shape, void* key_cache, void* value_cache) {
  return {static_cast<T*>(key_cache), static_cast<T*>(value_cache), shape.token_elements(), shape.rows, shape.capacity};
}

}  // namespace

void store_keys_values(const KeyValueCacheShape& shape, const TokenRows& tokens, std::int64_t first_row,
                       const void* keys, const void* values, std::int64_t stride, void* key_cache, void* value_cache,
                       cudaStream_t stream) {
  check(shape, key_cache, value_cache);
  check_at_least(stride, shape.token_elements(), "the stride of the keys");
  if (tokens.tokens == 0) return;
  check_pointer(tokens.row_of, sizeof(*tokens.row_of), "the rows of the tokens");
  check_pointer(tokens.positions, sizeof(*tokens.positions), "the positions of the tokens");
  check_pointer(keys, size_of(shape.dtype), "the keys");
  check_pointer(values, size_of(shape.dtype), "the values");
  const bool wide =
      fits_wide_access(shape.dtype, {keys, values, key_cache, value_cache}, {shape.token_elements(), stride});
  with_vectors(shape.dtype, wide, [&]<typename T, int kCount>() {
    const dim3 grid(static_cast<unsigned>(tokens.tokens),
                    static_cast<unsigned>(block_count(shape.token_elements(), kThreads * kCount)));
    launch_early(store_kernel<T, kCount>, grid, kThreads, 0, stream, caches_of<T>(shape, key_cache, value_cache),
                 tokens.row_of, tokens.positions, first_row, static_cast<const T*>(keys), static_cast<const T*>(values),
                 stride);
  });
}

void rotate_and_store(const KeyValueCacheShape& shape, std::int64_t heads, const std::int32_t* positions,
                      const float* cos, const float* sin, void* qkv, std::int64_t stride, void* key_cache,
                      void* value_cache, cudaStream_t stream) {
  check(shape, key_cache, value_cache);
  check_at_least(heads, 1, "the number of query heads");
  const std::int64_t all_heads = heads + 2 * shape.kv_heads;
  check_at_least(stride, all_heads * shape.head_dim, "the stride of queries, keys and values");
  check_at_most(shape.rows, 65535, "the number of rows of the caches of keys and values");
  check_pointer(positions, sizeof(*positions), "the positions of the tokens");
  check_pointer(cos, sizeof(*cos), "the cosines of the rotary embedding");
  check_pointer(sin, sizeof(*sin), "the sines of the rotary embedding");
  check_pointer(qkv, size_of(shape.dtype), "queries, keys and values");
  const std::int64_t half = shape.head_dim / 2;
  const RotationTask task{heads, shape.kv_heads, half, stride};
  const dim3 grid(static_cast<unsigned>(block_count(all_heads * half, kThreads)), static_cast<unsigned>(shape.rows));
  with_dtype(shape.dtype, [&]<typename T>() {
    launch_early(rotate_and_store_kernel<T>, grid, kThreads, 0, stream, task,
                 caches_of<T>(shape, key_cache, value_cache), positions, cos, sin, static_cast<T*>(qkv));
  });
}

}  // namespace qshard::optimized
