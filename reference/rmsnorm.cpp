#include "reference/rmsnorm.h"

#include <cmath>

#include "reference/matrix_product.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

template <typename Row>
auto reciprocal_root_mean_square(const Row& x, double epsilon) {
  using T = typename Row::Scalar;
  return T(1) / std::sqrt(x.squaredNorm() / static_cast<T>(x.size()) + static_cast<T>(epsilon));
}

}  // namespace

template <typename T>
Matrix<T> rmsnorm_forward(const Matrix<T>& x, const Vector<T>& weight, double epsilon, DType compute) {
  Matrix<T> y(x.rows(), x.cols());
  parallel_for(x.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      for (std::int64_t head = 0; head < x.cols(); head += weight.size()) {
        const auto in = x.row(token).segment(head, weight.size());
        auto out = y.row(token).segment(head, weight.size());
        out = in * reciprocal_root_mean_square(in, epsilon);
        round_to(compute, out);
        out.array() *= weight.transpose().array();
        round_to(compute, out);
      }
    }
  });
  return y;
}

template <typename T>
Matrix<T> rmsnorm_backward(const Matrix<T>& x, const Vector<T>& weight, double epsilon, DType compute,
                           const Matrix<T>& dy) {
  Matrix<T> dx(x.rows(), x.cols());
  parallel_for(x.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      for (std::int64_t head = 0; head < x.cols(); head += weight.size()) {
        const auto in = x.row(token).segment(head, weight.size());
        const T r = reciprocal_root_mean_square(in, epsilon);
        auto out = dx.row(token).segment(head, weight.size());
        out = dy.row(token).segment(head, weight.size()).cwiseProduct(weight.transpose());
        const T mean = out.dot(in) / static_cast<T>(weight.size());
        out = r * (out - in * (r * r * mean));
        round_to(compute, out);
      }
    }
  });
  return dx;
}

template Matrix<float> rmsnorm_forward(const Matrix<float>&, const Vector<float>&, double, DType);
template Matrix<double> rmsnorm_forward(const Matrix<double>&, const Vector<double>&, double, DType);
template Matrix<float> rmsnorm_backward(const Matrix<float>&, const Vector<float>&, double, DType,
                                        const Matrix<float>&);
template Matrix<double> rmsnorm_backward(const Matrix<double>&, const Vector<double>&, double, DType,
                                         const Matrix<double>&);

}  // namespace qshard::reference
