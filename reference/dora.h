#pragma once

#include "reference/linear4bit.h"

namespace qshard::reference {

/// DoRA (arXiv 2402.09353) as PEFT computes it: the rows of the adapted weight W + scaling B A have trained lengths m,
///   y = W x + b + (m / n - 1) W x' + (m / n) scaling B A x',   x' = dropout(x),
/// with n the lengths of those rows, which count as constants in the backward pass. Without dropout that is
/// y = (m / n) (W + scaling B A) x + b. W is the frozen weight [out, in] rounded to `compute`.

/// n [out], of the weight and the adapter: B A, scaling B A, their sum with W and n are each rounded to `compute`. A
/// new adapter's m is n, so that it changes nothing. 2 * out * r * in operations; sums in T. Deterministic.
template <typename T>
Vector<T> dora_norm(const LinearWeights<T>& weights, double scaling, DType compute);

/// y += (m / n - 1) W x + (m / n) scaling B A x, for x [tokens, in] (after dropout) and y [tokens, out] that holds the
/// layer's own W x + b. Every operation's result is rounded to `compute`. Deterministic on any number of threads.
template <typename T>
void dora_forward(const LinearWeights<T>& weights, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y);

/// Returns the gradient of x through what dora_forward() adds, given dy, and adds the gradients of A, B and m to
/// `gradient`: those of A and B as lora_backward() with (m / n) dy in place of dy, and
///   dm += sum over tokens of dy (W x + scaling B A x) / n.
template <typename T>
Matrix<T> dora_backward(const LinearWeights<T>& weights, double scaling, DType compute, const Matrix<T>& x,
                        const Matrix<T>& dy, Lora<T>& gradient);

}  // namespace qshard::reference
