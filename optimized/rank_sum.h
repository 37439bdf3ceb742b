#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "optimized/embedding.h"

namespace qshard::optimized {

/// One array a rank, index = rank; any of them may lie in another GPU's memory.
struct RankArrays {
  const float* of_rank[kMostShards] = {};
  int ranks = 0;
};

/// out[i] = ((x_0[i] + x_1[i]) + x_2[i]) + ... in float, for i < count: the reduction of collectives.h, whose result
/// has the same bits however the arrays reach this GPU. Pointers aligned to their element; 16 bytes at once where they
/// are aligned to that. One launch on `stream`, none for a count of 0. Throws Error(bad_input) for bad counts and
/// pointers; Error(rank_failed) when the launch fails.
void sum_in_rank_order(const RankArrays& arrays, std::int64_t count, float* out, cudaStream_t stream);

/// out[i] += that sum, which is made first: the micro-batches of a step, one after the other.
void add_sum_in_rank_order(const RankArrays& arrays, std::int64_t count, float* out, cudaStream_t stream);

}  // namespace qshard::optimized
