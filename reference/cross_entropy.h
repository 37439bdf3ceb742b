#pragma once

#include <cstdint>
#include <span>

#include "reference/matrix.h"

namespace qshard::reference {

/// Summed cross-entropy: the sum over the rows whose label is not kIgnoredLabel of
///   log(sum_j exp(z_j)) - z_label,
/// each row's in T with its greatest logit taken off first (no overflow), their sum in double. logits
/// [tokens, vocab], one label a row. Where `dlogits` is given it becomes gradient_scale (softmax(z) - onehot(label)),
/// rounded to `compute`, and zero in ignored rows; it may be `logits` itself. Deterministic. Throws Error(bad_input)
/// for a label that is neither kIgnoredLabel nor in the vocabulary.
template <typename T>
double cross_entropy(const Matrix<T>& logits, std::span<const std::int32_t> labels, double gradient_scale,
                     DType compute, Matrix<T>* dlogits);

}  // namespace qshard::reference
