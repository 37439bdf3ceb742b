#pragma once

#include "reference/matrix.h"

namespace qshard::reference {

/// A low-rank adapter (arXiv 2106.09685): y += scaling * B A dropout(x). a is [r, in], b is [out, r].
template <typename T>
struct Lora {
  Matrix<T> a;
  Matrix<T> b;
};

/// y += scaling * (x A^T) B^T, for x [tokens, in] (after dropout) and y [tokens, out]. Rounded to `compute` where PEFT
/// rounds: x A^T, its product with B^T, the scaled product, and the sum. All sums in T. With B = 0 y keeps its value.
template <typename T>
void lora_forward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y);

/// Returns dx = (d B) A, given dy, with d = scaling * dy and x as in the forward pass, and adds
///   dB += d^T (x A^T),  dA += (d B)^T x
/// to `gradient` (same shapes as `lora`). d, x A^T, d B and dx are rounded to `compute`; the gradients are sums over
/// all tokens in T and are not. With B = 0 dA is exactly 0. Deterministic on any number of threads.
template <typename T>
Matrix<T> lora_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, const Matrix<T>& dy,
                        Lora<T>& gradient);

}  // namespace qshard::reference
