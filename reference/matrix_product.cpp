#include "reference/matrix_product.h"

#include "reference/packed_matrix.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kFeaturesPerPiece = 64;

}  // namespace

template <typename T>
Matrix<T> times_transposed(const Matrix<T>& x, const Matrix<T>& w, DType compute, const Vector<T>& bias) {
  Matrix<T> y(x.rows(), w.rows());
  const PackedMatrix<T> packed(w, true);
  parallel_for(x.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    packed.multiply(x.data() + begin * x.cols(), end - begin, y.data() + begin * y.cols());
    auto piece = y.middleRows(begin, end - begin);
    if (bias.size() > 0) piece.rowwise() += bias.transpose();
    round_to(compute, piece);
  });
  return y;
}

template <typename T>
Matrix<T> times(const Matrix<T>& dy, const Matrix<T>& w, DType compute) {
  Matrix<T> dx(dy.rows(), w.cols());
  const PackedMatrix<T> packed(w, false);
  parallel_for(dy.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    packed.multiply(dy.data() + begin * dy.cols(), end - begin, dx.data() + begin * dx.cols());
    auto piece = dx.middleRows(begin, end - begin);
    round_to(compute, piece);
  });
  return dx;
}

template <typename T>
void add_times(const Matrix<T>& dy, const Matrix<T>& w, DType compute, Matrix<T>& values) {
  const PackedMatrix<T> packed(w, false);
  parallel_for(dy.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    Matrix<T> product(end - begin, w.cols());
    packed.multiply(dy.data() + begin * dy.cols(), end - begin, product.data());
    round_to(compute, product);
    auto piece = values.middleRows(begin, end - begin);
    piece += product;
    round_to(compute, piece);
  });
}

template <typename T>
void add_transposed_times(const Matrix<T>& dy, const Matrix<T>& x, Matrix<T>& sum) {
  if (dy.cols() > x.cols()) {
    parallel_for(dy.cols(), kFeaturesPerPiece, [&](std::int64_t begin, std::int64_t end) {
      sum.middleRows(begin, end - begin).noalias() += dy.middleCols(begin, end - begin).transpose() * x;
    });
  } else {
    parallel_for(x.cols(), kFeaturesPerPiece, [&](std::int64_t begin, std::int64_t end) {
      sum.middleCols(begin, end - begin).noalias() += dy.transpose() * x.middleCols(begin, end - begin);
    });
  }
}

template <typename T>
void add_rounded(const Matrix<T>& addend, DType compute, Matrix<T>& values) {
  parallel_for(values.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = values.middleRows(begin, end - begin);
    piece += addend.middleRows(begin, end - begin);
    round_to(compute, piece);
  });
}

template Matrix<float> times_transposed(const Matrix<float>&, const Matrix<float>&, DType, const Vector<float>&);
template Matrix<double> times_transposed(const Matrix<double>&, const Matrix<double>&, DType, const Vector<double>&);
template Matrix<float> times(const Matrix<float>&, const Matrix<float>&, DType);
template Matrix<double> times(const Matrix<double>&, const Matrix<double>&, DType);
template void add_times(const Matrix<float>&, const Matrix<float>&, DType, Matrix<float>&);
template void add_times(const Matrix<double>&, const Matrix<double>&, DType, Matrix<double>&);
template void add_transposed_times(const Matrix<float>&, const Matrix<float>&, Matrix<float>&);
template void add_transposed_times(const Matrix<double>&, const Matrix<double>&, Matrix<double>&);
template void add_rounded(const Matrix<float>&, DType, Matrix<float>&);
template void add_rounded(const Matrix<double>&, DType, Matrix<double>&);

}  // namespace qshard::reference
