#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// Partial sums that sum_squares() goes through.
inline constexpr int kSumPartials = 1024;

/// out_add[0] += sum of losses[0 .. count - 1], in double. Made for the losses of one step: a single thread block.
///
/// Pointers are device memory, aligned to their elements. One launch on `stream`, none for a count of 0; nothing is
/// allocated and nothing synchronized. Deterministic: the order of the sum depends on `count` alone. Throws
/// Error(bad_input) for a negative count and null or unaligned pointers; Error(rank_failed) when the launch fails.
void sum_losses(const float* losses, std::int64_t count, double* out_add, cudaStream_t stream);

/// out_add[0] += sum of values[i]^2 for i < count, in double (the products are exact). partials: kSumPartials doubles,
/// contents of no importance. Reads `values` once, 16 bytes at once where they are aligned to that. Two launches; the
/// order of the sum depends on `count` and that alignment alone. The rest as sum_losses.
void sum_squares(const float* values, std::int64_t count, double* partials, double* out_add, cudaStream_t stream);

}  // namespace qshard::optimized
