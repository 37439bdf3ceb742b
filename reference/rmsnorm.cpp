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
      auto row = y.row(token);
      row = x.row(token) * reciprocal_root_mean_square(x.row(token), epsilon);
      round_to(compute, row);
      row.array() *= weight.transpose().array();
      round_to(compute, row);
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
      const T r = reciprocal_root_mean_square(x.row(token), epsilon);
      auto row = dx.row(token);
      row = dy.row(token).cwiseProduct(weight.transpose());
      const T mean = row.dot(x.row(token)) / static_cast<T>(x.cols());
      row = r * (row - x.row(token) * (r * r * mean));
      round_to(compute, row);
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
