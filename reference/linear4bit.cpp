#include "reference/linear4bit.h"

#include <type_traits>

#include "core/base/error.h"
#include "reference/dequantize.h"
#include "reference/matrix_product.h"

namespace qshard::reference {

namespace {

void check_two_dimensions(const Shape& shape) {
  if (shape.size() != 2) {
    fail_input("a weight of shape {} stands where one of two dimensions is needed", to_string(shape));
  }
}

}  // namespace

template <typename T>
Matrix<T> to_matrix(const TensorView& tensor, DType compute) {
  check_two_dimensions(tensor.shape);
  const std::vector<float> values = to_floats(tensor);
  Matrix<T> matrix = Eigen::Map<const Matrix<float>>(values.data(), tensor.shape[0], tensor.shape[1]).cast<T>();
  round_to(compute, matrix);
  return matrix;
}

template <typename T>
Matrix<T> frozen_weight(const LinearWeights<T>& weights, DType compute) {
  if (!weights.quantized) return to_matrix<T>(weights.dense, compute);
  const Shape& shape = weights.quantized->info->shape;
  check_two_dimensions(shape);
  Matrix<float> matrix(shape[0], shape[1]);
  dequantize_rounded(*weights.quantized, compute, {matrix.data(), static_cast<std::size_t>(matrix.size())});
  if constexpr (std::is_same_v<T, float>) {
    return matrix;
  } else {
    return matrix.cast<T>();
  }
}

template <typename T>
Matrix<T> linear4bit_forward(const LinearWeights<T>& weights, DType compute, const Matrix<T>& x) {
  Vector<T> bias = weights.bias;
  round_to(compute, bias);
  return times_transposed(x, frozen_weight(weights, compute), compute, bias);
}

template <typename T>
Matrix<T> linear4bit_backward(const LinearWeights<T>& weights, DType compute, const Matrix<T>& dy) {
  return times(dy, frozen_weight(weights, compute), compute);
}

template Matrix<float> to_matrix(const TensorView&, DType);
template Matrix<double> to_matrix(const TensorView&, DType);
template Matrix<float> frozen_weight(const LinearWeights<float>&, DType);
template Matrix<double> frozen_weight(const LinearWeights<double>&, DType);
template Matrix<float> linear4bit_forward(const LinearWeights<float>&, DType, const Matrix<float>&);
template Matrix<double> linear4bit_forward(const LinearWeights<double>&, DType, const Matrix<double>&);
template Matrix<float> linear4bit_backward(const LinearWeights<float>&, DType, const Matrix<float>&);
template Matrix<double> linear4bit_backward(const LinearWeights<double>&, DType, const Matrix<double>&);

}  // namespace qshard::reference
