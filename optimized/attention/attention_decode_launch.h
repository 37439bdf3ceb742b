#pragma once

#include "optimized/attention/attention_decode.h"

namespace qshard::optimized {

/// attention_decode() after its checks. vector: 16 bytes of the caches may be read at once.
void launch_attention_decode(const AttentionDecodeShape& shape, const void* q, const void* key_cache,
                             const void* value_cache, const std::int32_t* lengths, void* o, void* workspace,
                             bool vector, cudaStream_t stream);

}  // namespace qshard::optimized
