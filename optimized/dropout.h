#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/token_rows.h"

namespace qshard::optimized {

/// Which mask, as reference::DropoutPlace, and the probability of a zero.
struct DropoutMask {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t layer = 0;       // below 4096
  std::uint32_t projection = 0;  // below 16
  double probability = 0;        // at least 0 and below 1; a double, since the threshold is cut from it as it was typed
};

/// Throws Error(bad_input) for a probability outside [0, 1) and for layers, projections or features (at most 2^18) that
/// do not fit the mask's counter.
void check_dropout(const DropoutMask& mask, std::int64_t features);

/// Inverted dropout: out = 0 with `probability`, round(x / (1 - probability)) otherwise, with the masks of
/// reference::dropout (dropout.cuh makes them) and equal to it to the bit. The same call on the gradient is the
/// backward pass. probability 0 copies. x and out: [rows.tokens, features] of `dtype` (f32, f16 or bf16), with their
/// strides from token to token; out may be x where these are equal. Of `rows`, positions, row_of and row_ids are read.
///
/// Pointers are aligned to the element; accesses take 16 bytes at once where pointers, features and strides allow.
/// Moves one read and one write of the elements. One launch on `stream`, none for 0 tokens; nothing is allocated and
/// nothing synchronized. Deterministic: elementwise. Throws Error(bad_input) as check_dropout() and for bad sizes,
/// strides, dtypes or pointers; Error(rank_failed) when the launch fails.
void dropout(const DropoutMask& mask, const TokenRows& rows, std::int64_t features, DType dtype, const void* x,
             std::int64_t x_stride, void* out, std::int64_t out_stride, cudaStream_t stream);

}  // namespace qshard::optimized
