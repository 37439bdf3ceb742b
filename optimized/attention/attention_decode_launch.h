#pragma once

#include "optimized/attention/attention_decode.h"

namespace qshard::optimized {

/// What rotate_and_attend() has besides; null: nothing is rotated or stored.
struct DecodeRotation {
  const float* cos = nullptr;
  const float* sin = nullptr;
  void* key_cache = nullptr;
  void* value_cache = nullptr;
};

/// Whether rotations are taken, for caches of which 16 bytes may be read at once.
inline bool rotates(const AttentionDecodeShape& shape) {
  return shape.head_dim == 64 || shape.head_dim == 128;
}

/// attention_decode() after its checks. vector: 16 bytes of the caches may be read at once.
void launch_attention_decode(const AttentionDecodeShape& shape, const void* q, const void* key_cache,
                             const void* value_cache, const std::int32_t* lengths, void* o, void* workspace,
                             bool vector, const DecodeRotation& rotation, cudaStream_t stream);

}  // namespace qshard::optimized
