#pragma once

#include <optional>

#include "core/tensor/weight4bit.h"
#include "reference/lora.h"
#include "reference/matrix.h"

namespace qshard::reference {

/// A linear layer: a frozen 4-bit or dense weight [out, in], a frozen bias where the model has one, and an adapter
/// where it is a target.
template <typename T>
struct LinearWeights {
  std::optional<Weight4bitView> quantized;
  TensorView dense;  // used when `quantized` is empty
  std::optional<Lora<T>> lora;
  Vector<T> bias = {};  // [out], frozen; empty: none
};

/// A floating 2-D tensor as a matrix, every element rounded to `compute`. Throws Error(bad_input) for another rank or
/// an integer dtype.
template <typename T>
Matrix<T> to_matrix(const TensorView& tensor, DType compute);

/// The frozen weight [out, in] rounded to `compute`: codebook value * absmax for a 4-bit one. The packed weight is read
/// once; out * in multiplications.
template <typename T>
Matrix<T> frozen_weight(const LinearWeights<T>& weights, DType compute);

/// y = x W^T + b with the frozen weight W and bias b, x [tokens, in], y [tokens, out]; W, b and y rounded to `compute`,
/// y once, sums in T. The weight is dequantized once a call. Deterministic on any number of threads.
template <typename T>
Matrix<T> linear4bit_forward(const LinearWeights<T>& weights, DType compute, const Matrix<T>& x);

/// dx = dy W through the same dequantized weight; dy [tokens, out], dx [tokens, in]. W itself gets no gradient.
template <typename T>
Matrix<T> linear4bit_backward(const LinearWeights<T>& weights, DType compute, const Matrix<T>& dy);

}  // namespace qshard::reference
