#include "optimized/attention/attention_decode.h"

#include <limits>

#include "core/base/error.h"
#include "optimized/attention/attention.h"
#include "optimized/attention/attention_decode_launch.h"
#include "optimized/attention/decode_parts.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

void check_decode_shape(const AttentionDecodeShape& shape) {
  check_floating(shape.dtype, "the dtype of attention");
  check_at_least(shape.rows, 1, "the number of rows of attention");
  check_at_least(shape.kv_heads, 1, "the number of key/value heads of attention");
  check_at_least(shape.heads, 1, "the number of heads of attention");
  check_at_least(shape.head_dim, 1, "the head_dim of attention");
  check_at_least(shape.window, 0, "the window of attention");
  check_at_least(shape.capacity, 1, "the capacity of attention's caches");
  if (shape.heads % shape.kv_heads != 0) {
    fail_input("attention has {} query heads, which are no multiple of its {} key/value heads", shape.heads,
               shape.kv_heads);
  }
  if (shape.head_dim > kMostHeadDim) {
    fail_input("head_dim {} is not supported by attention: use {} or less", shape.head_dim, kMostHeadDim);
  }
  check_at_least(shape.q_stride, shape.heads * shape.head_dim, "the stride of attention's queries");
  check_at_least(shape.o_stride, shape.heads * shape.head_dim, "the stride of attention's output");
  if (shape.rows > 65535 || shape.kv_heads > 65535 || shape.capacity > std::numeric_limits<std::int32_t>::max() / 4 ||
      shape.window > std::numeric_limits<std::int32_t>::max() / 4) {
    fail_input("{} rows of {} cached tokens with {} heads are too many for one call of attention", shape.rows,
               shape.capacity, shape.kv_heads);
  }
}

void check_decode_pointers(const AttentionDecodeShape& shape, const void* q, const void* key_cache,
                           const void* value_cache, const std::int32_t* lengths, const void* o, const void* workspace) {
  const std::size_t alignment = size_of(shape.dtype);
  check_pointer(q, alignment, "the query of attention");
  check_pointer(key_cache, alignment, "the key cache of attention");
  check_pointer(value_cache, alignment, "the value cache of attention");
  check_pointer(lengths, alignof(std::int32_t), "the lengths of attention's rows");
  check_pointer(o, alignment, "the output of attention");
  check_pointer(workspace, 16, "the workspace of attention");
}

/// Whether 16 bytes of the caches may be read at once.
bool reads_vectors(const AttentionDecodeShape& shape, const void* key_cache, const void* value_cache) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  return shape.dtype != DType::f32 && shape.head_dim % 8 == 0 && aligned(key_cache) && aligned(value_cache);
}

}  // namespace

std::size_t attention_decode_workspace_bytes(const AttentionDecodeShape& shape) {
  check_decode_shape(shape);
  return sizeof(float) * shape.rows * shape.heads * decode_parts(shape.capacity) * (2 + shape.head_dim);
}

void attention_decode(const AttentionDecodeShape& shape, const void* q, const void* key_cache, const void* value_cache,
                      const std::int32_t* lengths, void* o, void* workspace, cudaStream_t stream) {
  check_decode_shape(shape);
  check_decode_pointers(shape, q, key_cache, value_cache, lengths, o, workspace);
  launch_attention_decode(shape, q, key_cache, value_cache, lengths, o, workspace,
                          reads_vectors(shape, key_cache, value_cache), {}, stream);
}

bool rotate_and_attend(const AttentionDecodeShape& shape, const float* cos, const float* sin, const void* qkv,
                       void* key_cache, void* value_cache, const std::int32_t* lengths, void* o, void* workspace,
                       cudaStream_t stream) {
  check_decode_shape(shape);
  check_decode_pointers(shape, qkv, key_cache, value_cache, lengths, o, workspace);
  check_pointer(cos, sizeof(*cos), "the cosines of the rotary embedding");
  check_pointer(sin, sizeof(*sin), "the sines of the rotary embedding");
  check_at_least(shape.q_stride, (shape.heads + 2 * shape.kv_heads) * shape.head_dim,
                 "the stride of queries, keys and values");
  if (!reads_vectors(shape, key_cache, value_cache) || !rotates(shape)) return false;
  launch_attention_decode(shape, qkv, key_cache, value_cache, lengths, o, workspace, true,
                          {cos, sin, key_cache, value_cache}, stream);
  return true;
}

}  // namespace qshard::optimized
