#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/token_rows.h"

namespace qshard::optimized {

/// The keys and values that attention_decode() reads: two arrays [rows, capacity, kv_heads, head_dim].
struct KeyValueCacheShape {
  std::int64_t rows = 0;
  std::int64_t capacity = 0;  // tokens of a row
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;  // even
  DType dtype = DType::bf16;  // f32, bf16 or f16

  [[nodiscard]] std::int64_t token_elements() const { return kv_heads * head_dim; }
  [[nodiscard]] std::int64_t elements() const { return rows * capacity * token_elements(); }
};

/// Copies keys and values of whole rows of tokens: token t goes to row first_row + row_of[t] of the caches, to its
/// position. keys, values: [tokens, kv_heads * head_dim], `stride` elements from one token to the next. A token outside
/// the caches is left out.
///
/// For both functions: pointers are device memory, aligned to their element; deterministic: elementwise; ordered with
/// `stream`, nothing allocated and nothing synchronized; may be captured into a graph. Errors: Error(bad_input) for bad
/// sizes, strides, dtypes or pointers, Error(rank_failed) when the launch fails.
void store_keys_values(const KeyValueCacheShape& shape, const TokenRows& tokens, std::int64_t first_row,
                       const void* keys, const void* values, std::int64_t stride, void* key_cache, void* value_cache,
                       cudaStream_t stream);

/// One new token of each row: rotates its query heads in place and its key heads on their way into the cache, as
/// rope_forward() to the bit, and copies its value heads there. qkv: [rows, (heads + 2 kv_heads) * head_dim], a row's
/// query heads first, then key and value heads, `stride` elements from one row to the next; the keys in qkv stay.
/// positions: [rows], where the tokens are in their rows; cos and sin as for rope_forward(). One launch, which may
/// begin while the stream's earlier kernel ends.
void rotate_and_store(const KeyValueCacheShape& shape, std::int64_t heads, const std::int32_t* positions,
                      const float* cos, const float* sin, void* qkv, std::int64_t stride, void* key_cache,
                      void* value_cache, cudaStream_t stream);

}  // namespace qshard::optimized
