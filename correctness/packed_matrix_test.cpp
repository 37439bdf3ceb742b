#include "reference/packed_matrix.h"

#include <limits>

#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

/// A block of a larger matrix whose other elements are NaN.
template <typename T>
class Framed {
 public:
  explicit Framed(const Matrix<T>& values)
      : whole_(Matrix<T>::Constant(values.rows() + 3, values.cols() + 5, std::numeric_limits<T>::quiet_NaN())),
        rows_(values.rows()),
        columns_(values.cols()) {
    block() = values;
  }

  auto block() { return whole_.block(2, 4, rows_, columns_); }
  [[nodiscard]] bool frame_is_whole() const {
    return whole_.array().isNaN().count() == whole_.size() - rows_ * columns_;
  }

 private:
  Matrix<T> whole_;
  Eigen::Index rows_;
  Eigen::Index columns_;
};

/// y + x w with plain loops in double.
template <typename T>
Matrix<double> expected_sum(const Matrix<T>& x, const Matrix<T>& w, const Matrix<T>& y) {
  Matrix<double> sum = y.template cast<double>();
  for (Eigen::Index row = 0; row < y.rows(); ++row) {
    for (Eigen::Index column = 0; column < y.cols(); ++column) {
      for (Eigen::Index k = 0; k < w.rows(); ++k) sum(row, column) += static_cast<double>(x(row, k)) * w(k, column);
    }
  }
  return sum;
}

template <typename T>
void check(Eigen::Index rows, Eigen::Index depth, Eigen::Index columns, std::uint64_t seed) {
  const Matrix<T> x = random_matrix<T>(rows, depth, seed), w = random_matrix<T>(depth, columns, seed + 1);
  const Matrix<T> first = random_matrix<T>(rows, columns, seed + 2), zero = Matrix<T>::Zero(rows, columns);
  Framed<T> framed_x(x), framed_x_transposed(x.transpose()), framed_w(w), framed_w_transposed(w.transpose());
  for (const bool transposed : {false, true}) {
    const PackedMatrix<T> packed(transposed ? framed_w_transposed.block() : framed_w.block(), transposed);
    Framed<T> fresh(first), onto(first), onto_transposed(first);
    packed.multiply(framed_x.block(), fresh.block());
    packed.add_product(framed_x.block(), onto.block());
    packed.add_transposed_product(framed_x_transposed.block(), onto_transposed.block());
    // Sums of depth + 1 terms, most of them below 4; a double's are off by much less.
    const double bound = static_cast<double>((depth + 1) * (depth + 1)) * 4 * std::numeric_limits<T>::epsilon();
    expect_near<double, T>(expected_sum<T>(x, w, zero), fresh.block(), bound, "x w");
    expect_near<double, T>(expected_sum<T>(x, w, first), onto.block(), bound, "y + x w");
    expect_same_bits<T>(onto.block(), onto_transposed.block(), "y + x^T w");
    for (const Framed<T>* y : {&fresh, &onto, &onto_transposed}) EXPECT_TRUE(y->frame_is_whole());
  }
}

// Blocks of larger matrices: whole and partial tiles, panels and blocks of rows, of which nothing else is read or
// written.
TEST(PackedMatrix, MultipliesBlocks) {
  std::uint64_t seed = 1;
  for (const Eigen::Index rows : {1, 5, 6, 13}) {
    for (const Eigen::Index depth : {1, 9, 256, 300}) {
      for (const Eigen::Index columns : {1, 16, 37}) {
        check<float>(rows, depth, columns, seed += 3);
        check<double>(rows, depth, columns, seed += 3);
      }
    }
  }
}

}  // namespace
}  // namespace qshard::reference
