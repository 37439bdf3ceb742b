#include "reference/matrix_product.h"

#include "reference/packed_matrix.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kFeaturesPerPiece = 48;

}  // namespace

template <typename T>
Matrix<T> times_transposed(const Matrix<T>& x, const Matrix<T>& w, DType compute, const Vector<T>& bias) {
  Matrix<T> y(x.rows(), w.rows());
  const PackedMatrix<T> packed(w, true);
  parallel_for(x.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = y.middleRows(begin, end - begin);
    packed.multiply(x.middleRows(begin, end - begin), piece);
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
    auto piece = dx.middleRows(begin, end - begin);
    packed.multiply(dy.middleRows(begin, end - begin), piece);
    round_to(compute, piece);
  });
  return dx;
}

template <typename T>
void add_times(const Matrix<T>& dy, const Matrix<T>& w, DType compute, Matrix<T>& values) {
  const PackedMatrix<T> packed(w, false);
  parallel_for(dy.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = values.middleRows(begin, end - begin);
    if (compute == DType::f32) return packed.add_product(dy.middleRows(begin, end - begin), piece);
    Matrix<T> product(end - begin, w.cols());
    packed.multiply(dy.middleRows(begin, end - begin), product);
    round_to(compute, product);
    piece += product;
    round_to(compute, piece);
  });
}

// The narrower factor is packed; each task has some columns of the wider one.
template <typename T>
void add_transposed_times(const Matrix<T>& dy, const Matrix<T>& x, Matrix<T>& sum) {
  const bool packs_x = x.cols() <= dy.cols();
  const Matrix<T>& wide = packs_x ? dy : x;
  const PackedMatrix<T> narrow(packs_x ? x : dy, false);
  parallel_for(wide.cols(), kFeaturesPerPiece, [&](std::int64_t begin, std::int64_t end) {
    const auto columns = wide.middleCols(begin, end - begin);
    if (packs_x) return narrow.add_transposed_product(columns, sum.middleRows(begin, end - begin));
    Matrix<T> product = Matrix<T>::Zero(end - begin, narrow.columns());
    narrow.add_transposed_product(columns, product);
    sum.middleCols(begin, end - begin) += product.transpose();
  });
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
