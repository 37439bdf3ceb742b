#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

struct RopeShape {
  std::int64_t tokens = 0;
  std::int64_t heads = 0;     // of a token, one after the other
  std::int64_t head_dim = 0;  // even
  std::int64_t stride = 0;    // elements from one token to the next
  DType dtype = DType::bf16;  // of x: f32, f16 or bf16
};

/// Rotary position embedding (arXiv 2104.09864) in place, with the halves of a head as the two coordinates: for
/// i < head_dim / 2 and the position p of the token
///   (x_i, x_{i + head_dim / 2}) -> (x_i cos - x_{i + head_dim / 2} sin,  x_{i + head_dim / 2} cos + x_i sin),
/// products and sums rounded to `dtype`. cos and sin: tables [positions, head_dim / 2] in float, already rounded to
/// `dtype`, row p; positions: [tokens], each inside the tables, which the caller checks. Equal to the bit to
/// reference::rope_forward.
///
/// Pointers are aligned to the element; accesses take 16 bytes at once where pointers, head_dim / 2 and stride allow.
/// Moves one read and one write of x, and the tables from the cache. One launch on `stream`, none for 0 tokens; nothing
/// is allocated and nothing synchronized. Deterministic: elementwise. Throws Error(bad_input) for bad sizes, strides,
/// dtypes or pointers; Error(rank_failed) when the launch fails.
void rope_forward(const RopeShape& shape, const std::int32_t* positions, const float* cos, const float* sin, void* x,
                  cudaStream_t stream);

/// The gradient in place: the rotation by the opposite angle. Equal to the bit to reference::rope_backward.
void rope_backward(const RopeShape& shape, const std::int32_t* positions, const float* cos, const float* sin, void* dx,
                   cudaStream_t stream);

}  // namespace qshard::optimized
