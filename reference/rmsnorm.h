#pragma once

#include "reference/matrix.h"

namespace qshard::reference {

/// Root-mean-square normalization (arXiv 1910.07467) as Hugging Face's Llama computes it, for each row of x, or for
/// each head of it where the weight is of one head only (Qwen3's query and key norm):
///   r = 1 / sqrt(mean(x^2) + epsilon),  y = weight * round(x r), rounded again.
/// x [tokens, features], weight [features] or [head_dim] with features a multiple of head_dim; `round` is to
/// `compute`, everything else is in T. Deterministic on any number of threads.
template <typename T>
Matrix<T> rmsnorm_forward(const Matrix<T>& x, const Vector<T>& weight, double epsilon, DType compute);

/// The gradient of x, given dy: with g = weight * dy
///   dx = r (g - x r^2 mean(g x)), rounded to `compute`.
/// The weight is frozen and gets no gradient.
template <typename T>
Matrix<T> rmsnorm_backward(const Matrix<T>& x, const Vector<T>& weight, double epsilon, DType compute,
                           const Matrix<T>& dy);

}  // namespace qshard::reference
