#include "reference/lora.h"

#include "reference/matrix_product.h"
#include "reference/packed_matrix.h"
#include "reference/parallel.h"

namespace qshard::reference {

template <typename T>
Lora<T> zeros_like(const Lora<T>& lora) {
  return {Matrix<T>::Zero(lora.a.rows(), lora.a.cols()), Matrix<T>::Zero(lora.b.rows(), lora.b.cols()),
          Vector<T>::Zero(lora.bias.size()), Vector<T>::Zero(lora.magnitude.size())};
}

// A piece of tokens goes through the whole branch while it is in the cache. Where nothing is rounded, the factor goes
// into the r columns of x A^T, and the product with B^T right onto y.
template <typename T>
void lora_forward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y) {
  const PackedMatrix<T> a(lora.a, true), b(lora.b, true);
  const auto factor = static_cast<T>(scaling);
  parallel_for(x.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = y.middleRows(begin, end - begin);
    Matrix<T> inner(end - begin, lora.a.rows());
    a.multiply(x.middleRows(begin, end - begin), inner);
    if (compute == DType::f32) {
      inner *= factor;
      b.add_product(inner, piece);
      if (lora.bias.size() > 0) piece.rowwise() += factor * lora.bias.transpose();
      return;
    }
    round_to(compute, inner);
    Matrix<T> product(end - begin, lora.b.rows());
    b.multiply(inner, product);
    if (lora.bias.size() > 0) product.rowwise() += lora.bias.transpose();
    round_to(compute, product);
    product *= factor;
    round_to(compute, product);
    piece += product;
    round_to(compute, piece);
  });
}

// Where d is not rounded, its factor goes into the products of r columns instead.
template <typename T>
Matrix<T> lora_inner_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x,
                              const Matrix<T>& dy, Lora<T>& gradient) {
  const auto factor = static_cast<T>(scaling);
  const bool rounds = compute != DType::f32;
  Matrix<T> rounded(rounds ? dy.rows() : 0, dy.cols());
  parallel_for(rounded.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = rounded.middleRows(begin, end - begin);
    piece = dy.middleRows(begin, end - begin) * factor;
    round_to(compute, piece);
  });
  const Matrix<T>& d = rounds ? rounded : dy;
  const T left = rounds ? T(1) : factor;
  add_transposed_times<T>(d, left * times_transposed(x, lora.a, compute), gradient.b);
  if (lora.bias.size() > 0) gradient.bias += left * d.colwise().sum().transpose();
  Matrix<T> inner = times(d, lora.b, compute);
  inner *= left;
  add_transposed_times(inner, x, gradient.a);
  return inner;
}

template <typename T>
Matrix<T> lora_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, const Matrix<T>& dy,
                        Lora<T>& gradient) {
  return times(lora_inner_backward(lora, scaling, compute, x, dy, gradient), lora.a, compute);
}

template Lora<float> zeros_like(const Lora<float>&);
template Lora<double> zeros_like(const Lora<double>&);
template void lora_forward(const Lora<float>&, double, DType, const Matrix<float>&, Matrix<float>&);
template void lora_forward(const Lora<double>&, double, DType, const Matrix<double>&, Matrix<double>&);
template Matrix<float> lora_inner_backward(const Lora<float>&, double, DType, const Matrix<float>&,
                                           const Matrix<float>&, Lora<float>&);
template Matrix<double> lora_inner_backward(const Lora<double>&, double, DType, const Matrix<double>&,
                                            const Matrix<double>&, Lora<double>&);
template Matrix<float> lora_backward(const Lora<float>&, double, DType, const Matrix<float>&, const Matrix<float>&,
                                     Lora<float>&);
template Matrix<double> lora_backward(const Lora<double>&, double, DType, const Matrix<double>&, const Matrix<double>&,
                                      Lora<double>&);

}  // namespace qshard::reference
