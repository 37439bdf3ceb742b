#include "reference/dora.h"

#include "reference/matrix_product.h"

namespace qshard::reference {
namespace {

template <typename T>
Vector<T> row_norms(const Matrix<T>& w, const Lora<T>& lora, double scaling, DType compute) {
  const Matrix<T> a_transposed = lora.a.transpose();
  Matrix<T> sum = times_transposed(lora.b, a_transposed, compute);
  sum *= static_cast<T>(scaling);
  round_to(compute, sum);
  add_rounded(w, compute, sum);
  Vector<T> norms = sum.rowwise().norm();
  round_to(compute, norms);
  return norms;
}

/// m / n.
template <typename T>
Vector<T> row_scales(const Lora<T>& lora, const Vector<T>& norms, DType compute) {
  Vector<T> scales = lora.magnitude.cwiseQuotient(norms);
  round_to(compute, scales);
  return scales;
}

/// m / n - 1.
template <typename T>
Vector<T> less_one(const Vector<T>& scales, DType compute) {
  Vector<T> rest = scales.array() - T(1);
  round_to(compute, rest);
  return rest;
}

/// Every token's features times one factor a feature.
template <typename T>
Matrix<T> scaled(const Matrix<T>& values, const Vector<T>& factors, DType compute) {
  Matrix<T> result = values.array().rowwise() * factors.transpose().array();
  round_to(compute, result);
  return result;
}

template <typename T>
Matrix<T> scaled(const Matrix<T>& values, double factor, DType compute) {
  Matrix<T> result = values * static_cast<T>(factor);
  round_to(compute, result);
  return result;
}

template <typename T>
Matrix<T> low_rank_product(const Lora<T>& lora, const Matrix<T>& x, DType compute) {
  return times_transposed(times_transposed(x, lora.a, compute), lora.b, compute);
}

}  // namespace

template <typename T>
Vector<T> dora_norm(const LinearWeights<T>& weights, double scaling, DType compute) {
  return row_norms(frozen_weight(weights, compute), *weights.lora, scaling, compute);
}

template <typename T>
void dora_forward(const LinearWeights<T>& weights, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y) {
  const Lora<T>& lora = *weights.lora;
  const Matrix<T> w = frozen_weight(weights, compute);
  const Vector<T> scales = row_scales(lora, row_norms(w, lora, scaling, compute), compute);
  Matrix<T> added = scaled(times_transposed(x, w, compute), less_one(scales, compute), compute);
  add_rounded(scaled(scaled(low_rank_product(lora, x, compute), scales, compute), scaling, compute), compute, added);
  add_rounded(added, compute, y);
}

template <typename T>
Matrix<T> dora_backward(const LinearWeights<T>& weights, double scaling, DType compute, const Matrix<T>& x,
                        const Matrix<T>& dy, Lora<T>& gradient) {
  const Lora<T>& lora = *weights.lora;
  const Matrix<T> w = frozen_weight(weights, compute);
  const Vector<T> norms = row_norms(w, lora, scaling, compute);
  const Vector<T> scales = row_scales(lora, norms, compute);
  const Matrix<T> dscaled = scaled(dy, scaling, compute);

  const Matrix<T> dscales =
      dy.cwiseProduct(times_transposed(x, w, compute)) + dscaled.cwiseProduct(low_rank_product(lora, x, compute));
  gradient.magnitude += dscales.colwise().sum().transpose().cwiseQuotient(norms);

  Matrix<T> dx = times(scaled(dy, less_one(scales, compute), compute), w, compute);
  add_rounded(lora_backward(lora, 1.0, compute, x, scaled(dscaled, scales, compute), gradient), compute, dx);
  return dx;
}

template Vector<float> dora_norm(const LinearWeights<float>&, double, DType);
template Vector<double> dora_norm(const LinearWeights<double>&, double, DType);
template void dora_forward(const LinearWeights<float>&, double, DType, const Matrix<float>&, Matrix<float>&);
template void dora_forward(const LinearWeights<double>&, double, DType, const Matrix<double>&, Matrix<double>&);
template Matrix<float> dora_backward(const LinearWeights<float>&, double, DType, const Matrix<float>&,
                                     const Matrix<float>&, Lora<float>&);
template Matrix<double> dora_backward(const LinearWeights<double>&, double, DType, const Matrix<double>&,
                                      const Matrix<double>&, Lora<double>&);

}  // namespace qshard::reference
