#include "reference/swiglu.h"

#include "reference/matrix_product.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

template <typename Rows>
auto logistic(const Rows& gate) {
  using T = typename Rows::Scalar;
  return (T(1) + (-gate.array()).exp()).inverse();
}

}  // namespace

template <typename T>
Matrix<T> swiglu_forward(const Matrix<T>& gate, const Matrix<T>& up, DType compute) {
  Matrix<T> y(gate.rows(), gate.cols());
  parallel_for(gate.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    const auto g = gate.middleRows(begin, end - begin);
    auto piece = y.middleRows(begin, end - begin);
    piece = (g.array() * logistic(g)).matrix();
    round_to(compute, piece);
    piece.array() *= up.middleRows(begin, end - begin).array();
    round_to(compute, piece);
  });
  return y;
}

template <typename T>
SwigluGradients<T> swiglu_backward(const Matrix<T>& gate, const Matrix<T>& up, DType compute, const Matrix<T>& dy) {
  SwigluGradients<T> gradients{Matrix<T>(gate.rows(), gate.cols()), Matrix<T>(gate.rows(), gate.cols())};
  parallel_for(gate.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    const auto g = gate.middleRows(begin, end - begin);
    const auto dy_piece = dy.middleRows(begin, end - begin);
    const Matrix<T> s = logistic(g).matrix();

    auto dup = gradients.up.middleRows(begin, end - begin);
    dup = g.cwiseProduct(s);
    round_to(compute, dup);
    dup.array() *= dy_piece.array();
    round_to(compute, dup);

    auto dgate = gradients.gate.middleRows(begin, end - begin);
    dgate = dy_piece.cwiseProduct(up.middleRows(begin, end - begin));
    round_to(compute, dgate);
    dgate.array() *= s.array() * (T(1) + g.array() * (T(1) - s.array()));
    round_to(compute, dgate);
  });
  return gradients;
}

template Matrix<float> swiglu_forward(const Matrix<float>&, const Matrix<float>&, DType);
template Matrix<double> swiglu_forward(const Matrix<double>&, const Matrix<double>&, DType);
template SwigluGradients<float> swiglu_backward(const Matrix<float>&, const Matrix<float>&, DType,
                                                const Matrix<float>&);
template SwigluGradients<double> swiglu_backward(const Matrix<double>&, const Matrix<double>&, DType,
                                                 const Matrix<double>&);

}  // namespace qshard::reference
