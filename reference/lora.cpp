#include "reference/lora.h"

#include "reference/matrix_product.h"
#include "reference/parallel.h"

namespace qshard::reference {

template <typename T>
Lora<T> zeros_like(const Lora<T>& lora) {
  return {Matrix<T>::Zero(lora.a.rows(), lora.a.cols()), Matrix<T>::Zero(lora.b.rows(), lora.b.cols()),
          Vector<T>::Zero(lora.bias.size()), Vector<T>::Zero(lora.magnitude.size())};
}

// A piece of tokens goes through the whole branch while it is in the cache.
template <typename T>
void lora_forward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y) {
  parallel_for(x.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    Matrix<T> inner(end - begin, lora.a.rows());
    inner.noalias() = x.middleRows(begin, end - begin) * lora.a.transpose();
    round_to(compute, inner);
    Matrix<T> product(end - begin, lora.b.rows());
    product.noalias() = inner * lora.b.transpose();
    if (lora.bias.size() > 0) product.rowwise() += lora.bias.transpose();
    round_to(compute, product);
    product *= static_cast<T>(scaling);
    round_to(compute, product);
    auto piece = y.middleRows(begin, end - begin);
    piece += product;
    round_to(compute, piece);
  });
}

template <typename T>
Matrix<T> lora_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, const Matrix<T>& dy,
                        Lora<T>& gradient) {
  Matrix<T> scaled(dy.rows(), dy.cols());
  parallel_for(dy.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = scaled.middleRows(begin, end - begin);
    piece = dy.middleRows(begin, end - begin) * static_cast<T>(scaling);
    round_to(compute, piece);
  });
  add_transposed_times(scaled, times_transposed(x, lora.a, compute), gradient.b);
  if (lora.bias.size() > 0) gradient.bias += scaled.colwise().sum().transpose();
  const Matrix<T> inner = times(scaled, lora.b, compute);
  add_transposed_times(inner, x, gradient.a);
  return times(inner, lora.a, compute);
}

template Lora<float> zeros_like(const Lora<float>&);
template Lora<double> zeros_like(const Lora<double>&);
template void lora_forward(const Lora<float>&, double, DType, const Matrix<float>&, Matrix<float>&);
template void lora_forward(const Lora<double>&, double, DType, const Matrix<double>&, Matrix<double>&);
template Matrix<float> lora_backward(const Lora<float>&, double, DType, const Matrix<float>&, const Matrix<float>&,
                                     Lora<float>&);
template Matrix<double> lora_backward(const Lora<double>&, double, DType, const Matrix<double>&, const Matrix<double>&,
                                      Lora<double>&);

}  // namespace qshard::reference
