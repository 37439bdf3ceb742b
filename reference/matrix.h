#pragma once

#include <Eigen/Core>

#include "core/tensor/dtype.h"
#include "core/tensor/float16.h"

namespace qshard::reference {

/// Activations and weights: one row a token or an output feature, as they lie in files. The reference is instantiated
/// for float (training) and double (checking gradients).
template <typename T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <typename T>
using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;

/// Rounds every element to `compute` and back (nearest, ties to even): how a 16-bit compute_dtype is modelled, after
/// each operation. f32 changes nothing.
template <typename Derived>
void round_to(DType compute, Eigen::MatrixBase<Derived>& values) {
  using T = typename Derived::Scalar;
  if (compute == DType::bf16) {
    values =
        values.unaryExpr([](T v) { return static_cast<T>(to_float(from_float<bfloat16>(static_cast<float>(v)))); });
  } else if (compute == DType::f16) {
    values = values.unaryExpr([](T v) { return static_cast<T>(to_float(from_float<float16>(static_cast<float>(v)))); });
  }
}

}  // namespace qshard::reference
