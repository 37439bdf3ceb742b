#pragma once

#include "reference/matrix.h"

namespace qshard::reference {

/// The gated unit of Llama's feed-forward block (arXiv 2002.05202):
///   y = round(silu(gate)) * up, rounded; silu(g) = g s(g), s(g) = 1 / (1 + exp(-g)).
/// gate, up, y: [tokens, intermediate]; `round` is to `compute`. Deterministic on any number of threads.
template <typename T>
Matrix<T> swiglu_forward(const Matrix<T>& gate, const Matrix<T>& up, DType compute);

template <typename T>
struct SwigluGradients {
  Matrix<T> gate;
  Matrix<T> up;
};

/// dup = dy round(silu(gate)),  dgate = round(dy up) s(gate) (1 + gate (1 - s(gate))), both rounded to `compute`.
template <typename T>
SwigluGradients<T> swiglu_backward(const Matrix<T>& gate, const Matrix<T>& up, DType compute, const Matrix<T>& dy);

}  // namespace qshard::reference
