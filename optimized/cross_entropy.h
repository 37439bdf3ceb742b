#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Cross-entropy of each row of logits z with its target:
///   losses[i] = log(sum_j exp(z_ij)) - z_{i, targets[i]},
/// in float with the row's greatest logit taken off first (no overflow); 0 where targets[i] is kIgnoredLabel. With
/// `gradient` the logits become, in place,
///   dlogits = round(gradient_scale[0] (softmax(z) - onehot(target))),
/// and zero in ignored rows; without it they are only read. As reference::cross_entropy but for the order of the sum;
/// exp is accurate to its last bits in f32, and the hardware's approximation for 16-bit dtypes.
///
/// logits: [rows, vocab] of `dtype` (f32, f16 or bf16), `stride` elements from row to row; targets and losses: [rows];
/// gradient_scale: one float in device memory, not read (and null if you like) without `gradient`. A target that is
/// neither kIgnoredLabel nor in the vocabulary makes the row's loss and, with `gradient`, its logits NaN, so that the
/// step is seen to have failed. A row with a NaN or only infinite logits gives NaN.
///
/// Pointers are aligned to the element; accesses take 16 bytes at once where logits, vocab and stride allow. A thread
/// block a row, which reads its row twice, the second time from the L2 cache as far as the rows in flight fit there,
/// and writes it once. Ignored rows are not read. One launch on `stream`, none for 0 rows; nothing is allocated and
/// nothing synchronized. Deterministic: the order of a sum depends on vocab, dtype and alignment alone. Throws
/// Error(bad_input) for bad sizes, strides, dtypes or pointers; Error(rank_failed) when the launch fails.
void cross_entropy(std::int64_t rows, std::int64_t vocab, std::int64_t stride, DType dtype, void* logits,
                   const std::int32_t* targets, const float* gradient_scale, bool gradient, float* losses,
                   cudaStream_t stream);

}  // namespace qshard::optimized
