#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// `groups` vectors of `size` elements a token, one after the other, each normalized for itself: 1 group for a whole
/// row of activations, one group a head for the norms of queries and keys.
struct NormShape {
  std::int64_t tokens = 0;
  std::int64_t groups = 1;
  std::int64_t size = 0;
  std::int64_t x_stride = 0;  // elements from one token to the next
  std::int64_t y_stride = 0;
  double epsilon = 0;
  DType dtype = DType::bf16;  // of everything: f32, f16 or bf16
};

/// Root-mean-square normalization (arXiv 1910.07467) of each group of `size` elements, with weight [size]:
///   r = 1 / sqrt(mean(x^2) + epsilon),  y = weight * round(x r), rounded again,
/// like reference::rmsnorm_forward but for the order of the sum. y may be x where the strides are equal. Rounding is
/// to `dtype`, arithmetic in float.
///
/// Pointers are aligned to the element; accesses take 16 bytes at once where pointers, size and strides allow. Moves
/// one read of x and one write of y. One launch on `stream`, none for 0 tokens; nothing is allocated and nothing
/// synchronized. Deterministic: the order of a sum depends on the shape and the pointers' alignment alone. Throws
/// Error(bad_input) for bad sizes, strides, dtypes or pointers; Error(rank_failed) when the launch fails.
void rmsnorm_forward(const NormShape& shape, const void* x, const void* weight, void* y, cudaStream_t stream);

/// The same of round(x + addend), which x becomes: the sum of a residual connection and the norm after it in one pass.
/// addend has x_stride; null: none, and x stays. y may not be x. The launch may begin while the stream's earlier kernel
/// ends. The bits are those of add() and rmsnorm_forward().
void add_rmsnorm_forward(const NormShape& shape, const void* addend, const void* weight, void* x, void* y,
                         cudaStream_t stream);

/// The gradient of x, with g = weight * dy:
///   dx = round(round(r (g - x r^2 mean(g x))) + addend);
/// `addend` is another gradient of x (that of the residual connection); null: none, and nothing is rounded twice. dy
/// and dx have y_stride, x and addend x_stride. dx may be dy, and addend or x where the strides are equal. y: what
/// rmsnorm_forward() makes of x, has y_stride and may be dy where dx is not; null: not wanted. Reads x, dy and addend
/// once and writes dx and y once. The rest as rmsnorm_forward. The weight is frozen and gets no gradient.
void rmsnorm_backward(const NormShape& shape, const void* x, const void* weight, const void* dy, const void* addend,
                      void* dx, void* y, cudaStream_t stream);

}  // namespace qshard::optimized
