#pragma once

#include "optimized/attention/attention_decode.h"

namespace qshard::optimized {

/// How a cache of `capacity` tokens is cut: parts of whole 64 tokens, at most kMostDecodeParts of them.
inline constexpr std::int64_t kMostDecodeParts = 64;

constexpr std::int64_t decode_part_tokens(std::int64_t capacity) {
  const std::int64_t blocks = (capacity + 63) / 64;
  return (blocks + kMostDecodeParts - 1) / kMostDecodeParts * 64;
}

constexpr std::int64_t decode_parts(std::int64_t capacity) {
  return (capacity + decode_part_tokens(capacity) - 1) / decode_part_tokens(capacity);
}

/// attention_decode() after its checks. vector: 16 bytes of the caches may be read at once.
void launch_attention_decode(const AttentionDecodeShape& shape, const void* q, const void* key_cache,
                             const void* value_cache, const std::int32_t* lengths, void* o, void* workspace,
                             bool vector, cudaStream_t stream);

}  // namespace qshard::optimized
