#pragma once

#include "reference/matrix.h"

namespace qshard::reference {

/// A low-rank adapter (arXiv 2106.09685): y += scaling * (B A dropout(x) + bias), or DoRA (see dora.h).
template <typename T>
struct Lora {
  Matrix<T> a;               // [r, in]
  Matrix<T> b;               // [out, r]
  Vector<T> bias = {};       // [out]; empty: none
  Vector<T> magnitude = {};  // [out], of DoRA; empty: plain LoRA
};

/// Zeros of the same shapes, for gradients.
template <typename T>
Lora<T> zeros_like(const Lora<T>& lora);

/// y += scaling * ((x A^T) B^T + bias), for x [tokens, in] (after dropout) and y [tokens, out]. Rounded to `compute`
/// where PEFT rounds: x A^T, its product with B^T plus the bias, the scaled product, and the sum. All sums in T. With B
/// = 0 y keeps its value.
template <typename T>
void lora_forward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y);

/// Returns dx = (d B) A, given dy, with d = scaling * dy and x as in the forward pass, and adds
///   dB += d^T (x A^T),  dA += (d B)^T x,  dbias += d^T 1
/// to `gradient` (same shapes as `lora`). d, x A^T, d B and dx are rounded to `compute`; the gradients are sums over
/// all tokens in T and are not. With B = 0 dA is exactly 0. Deterministic on any number of threads.
template <typename T>
Matrix<T> lora_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, const Matrix<T>& dy,
                        Lora<T>& gradient);

/// The same but for the last product: returns d B, [tokens, r].
template <typename T>
Matrix<T> lora_inner_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x,
                              const Matrix<T>& dy, Lora<T>& gradient);

}  // namespace qshard::reference
