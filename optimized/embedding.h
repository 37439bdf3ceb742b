#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

inline constexpr int kMostShards = 64;

/// One string of bytes that is cut into `count` equal parts: byte i is shards[i / shard_bytes][i % shard_bytes]. A part
/// may lie in another GPU's memory that this one can read. count 1: the whole string lies in shards[0].
struct ShardedTable {
  const std::byte* shards[kMostShards] = {};
  std::int64_t shard_bytes = 0;
  int count = 0;
};

/// Rows of an embedding table: out[t] = row ids[t] of the table, the bits unchanged, for t < tokens. The table is
/// row-major, [vocabulary, hidden] of `dtype` (f32, f16 or bf16), and starts at byte `offset_bytes` of the string; a
/// cut may lie between any two elements. out: [tokens, hidden].
///
/// The caller checks that ids are inside the vocabulary. An id whose row is not inside the string reads nothing and
/// gives a row of NaN. Pointers are aligned to the element; reads and writes take 16 bytes at once where the pointers,
/// offset_bytes, shard_bytes and the bytes of a row are multiples of 16. Moves 2 tokens * hidden elements.
///
/// One launch on `stream`, none for 0 tokens; nothing is allocated and nothing synchronized. Deterministic: a copy.
/// Throws Error(bad_input) for sizes below their least, more than kMostShards shards, shard_bytes or offset_bytes that
/// cut through an element, a dtype that is not floating and a null or unaligned pointer; Error(rank_failed) when the
/// launch fails.
void embed(const ShardedTable& table, std::int64_t offset_bytes, DType dtype, std::int64_t hidden,
           const std::int32_t* ids, std::int64_t tokens, void* out, cudaStream_t stream);

}  // namespace qshard::optimized
