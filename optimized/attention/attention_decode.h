#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Attention of one new token a row against the keys and values kept of its row: heads as in AttentionShape.
struct AttentionDecodeShape {
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;  // 1 to kMostHeadDim
  std::int64_t window = 0;    // as in AttentionShape
  std::int64_t capacity = 0;  // tokens that the caches hold a row
  std::int64_t q_stride = 0;  // elements from one row to the next of q
  std::int64_t o_stride = 0;  // and of o
  DType dtype = DType::bf16;  // f32, bf16 or f16
};

/// Device memory that attention_decode() needs, in bytes.
std::size_t attention_decode_workspace_bytes(const AttentionDecodeShape& shape);

/// o[r] = softmax over j < lengths[r] (q[r] . k_j / sqrt(head_dim)) v for every head of every row, with keys and values
/// [rows, capacity, kv_heads, head_dim]; the query is at position lengths[r] - 1, whose key and value are in the caches
/// already. lengths [rows] is on the device, each 1 to capacity (0 gives zeros), so that a captured graph serves every
/// length. Everything in float, o rounded to dtype. The cache is cut into parts by `capacity` alone, each part summed
/// by one thread block and the parts added in their order: deterministic, and independent of the other rows.
/// workspace: attention_decode_workspace_bytes(), aligned to 16 bytes. Nothing is allocated or awaited. Throws
/// Error(bad_input) for sizes, strides or pointers that do not fit.
void attention_decode(const AttentionDecodeShape& shape, const void* q, const void* key_cache, const void* value_cache,
                      const std::int32_t* lengths, void* o, void* workspace, cudaStream_t stream);

/// rotate_and_store() (key_value_cache.h) and attention_decode() in one kernel less, with their bits, but that qkv
/// stays as it is: row r of qkv, of shape.q_stride elements, has the queries, keys and values of the token at position
/// lengths[r] - 1; cos and sin as there. Returns whether it was done: it is for 16-bit dtypes, a head_dim of 64 or 128
/// and caches aligned to 16 bytes; otherwise nothing happens. Throws as attention_decode().
bool rotate_and_attend(const AttentionDecodeShape& shape, const float* cos, const float* sin, const void* qkv,
                       void* key_cache, void* value_cache, const std::int32_t* lengths, void* o, void* workspace,
                       cudaStream_t stream);

}  // namespace qshard::optimized
