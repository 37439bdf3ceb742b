#include "reference/matrix_product.h"

#include <limits>

#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

// 300 tokens are whole pieces and a part of one.
constexpr Eigen::Index kTokens = 300;
constexpr Eigen::Index kIn = 70;
constexpr Eigen::Index kOut = 130;

double sum_of_products(const Matrix<float>& x, Eigen::Index x_row, const Matrix<float>& w, Eigen::Index w_row) {
  double sum = 0;
  for (Eigen::Index i = 0; i < x.cols(); ++i) sum += static_cast<double>(x(x_row, i)) * w(w_row, i);
  return sum;
}

/// x w^T with plain loops in double.
Matrix<double> expected_product(const Matrix<float>& x, const Matrix<float>& w) {
  Matrix<double> y(x.rows(), w.rows());
  for (Eigen::Index row = 0; row < y.rows(); ++row) {
    for (Eigen::Index col = 0; col < y.cols(); ++col) y(row, col) = sum_of_products(x, row, w, col);
  }
  return y;
}

// A float sum of n products is off by at most n 2^-24 times the sum of their magnitudes: n^2 2^-24 is generous for
// standard normal factors up to about 4, whose products average below 1.
double bound(Eigen::Index length) {
  return static_cast<double>(length) * static_cast<double>(length) * 0x1p-24;
}

TEST(MatrixProduct, EqualsPlainLoops) {
  const Matrix<float> x = random_matrix<float>(kTokens, kIn, 1);
  const Matrix<float> w = random_matrix<float>(kOut, kIn, 2);
  const Matrix<float> dy = random_matrix<float>(kTokens, kOut, 3);
  expect_near(expected_product(x, w), times_transposed(x, w, DType::f32), bound(kIn), "x w^T");
  expect_near(expected_product(dy, w.transpose()), times(dy, w, DType::f32), bound(kOut), "dy w");
  for (const bool wide : {false, true}) {  // the two ways in which the features are split
    const Matrix<float>& left = wide ? dy : x;
    const Matrix<float>& right = wide ? x : dy;
    Matrix<float> sum = Matrix<float>::Constant(left.cols(), right.cols(), 2);
    add_transposed_times(left, right, sum);
    const Matrix<double> expected = (expected_product(left.transpose(), right.transpose()).array() + 2).matrix();
    expect_near(expected, sum, bound(kTokens), "2 + dy^T x");
  }
}

// Rows of w beyond one block, columns beyond whole panels and tokens beyond whole tiles; no tokens, and nothing to sum.
TEST(MatrixProduct, EqualsPlainLoopsOfEveryShape) {
  std::uint64_t seed = 20;
  for (const Eigen::Index tokens : {0, 1, 5, 6, 49}) {
    for (const Eigen::Index in : {0, 1, 8, 255, 256, 521}) {
      for (const Eigen::Index out : {1, 7, 8, 16, 33}) {
        const Matrix<float> x = random_matrix<float>(tokens, in, ++seed);
        const Matrix<float> w = random_matrix<float>(out, in, ++seed);
        const Matrix<float> transposed = w.transpose();
        const Matrix<double> expected = expected_product(x, w);
        expect_near(expected, times_transposed(x, w, DType::f32), bound(in + 4), "x w^T");
        expect_near(expected, times(x, transposed, DType::f32), bound(in + 4), "x w");
        Matrix<float> sum = Matrix<float>::Constant(tokens, out, 2);
        add_times(x, transposed, DType::f32, sum);
        expect_near<double, float>((expected.array() + 2).matrix(), sum, bound(in + 4), "2 + x w");
        const Matrix<double> x64 = x.cast<double>(), w64 = w.cast<double>();
        expect_near(expected, times_transposed(x64, w64, DType::f32), 1e-11, "x w^T in double");
      }
    }
  }
}

TEST(MatrixProduct, ANanStaysInItsRow) {
  Matrix<float> x = random_matrix<float>(7, 20, 30);
  x(6, 19) = std::numeric_limits<float>::quiet_NaN();
  const Matrix<float> y = times_transposed(x, random_matrix<float>(9, 20, 31), DType::f32);
  EXPECT_TRUE(y.row(6).array().isNaN().all());
  EXPECT_FALSE(y.topRows(6).hasNaN());
}

TEST(MatrixProduct, RoundsToTheComputeDtype) {
  const Matrix<float> x = random_matrix<float>(kTokens, kIn, 4);
  const Matrix<float> w = random_matrix<float>(kOut, kIn, 5);
  for (const DType compute : {DType::bf16, DType::f16}) {
    Matrix<float> expected = times_transposed(x, w, DType::f32);
    round_to(compute, expected);
    expect_same_bits(expected, times_transposed(x, w, compute), "x w^T");
    Matrix<float> sum = x;
    add_rounded(x, compute, sum);
    Matrix<float> expected_sum = x + x;
    round_to(compute, expected_sum);
    expect_same_bits(expected_sum, sum, "x + x");
    Matrix<float> with_product = random_matrix<float>(kTokens, kOut, 9);
    Matrix<float> expected_with_product = with_product + expected;
    round_to(compute, expected_with_product);
    add_times<float>(x, w.transpose(), compute, with_product);
    expect_same_bits(expected_with_product, with_product, "y + x w^T");
  }
}

TEST(MatrixProduct, DoesNotDependOnTheNumberOfThreads) {
  const Matrix<float> x = random_matrix<float>(kTokens, kIn, 6);
  const Matrix<float> w = random_matrix<float>(kOut, kIn, 7);
  const Matrix<float> dy = random_matrix<float>(kTokens, kOut, 8);
  const auto forward = with_thread_counts([&] { return times_transposed(x, w, DType::f32); });
  const auto backward = with_thread_counts([&] { return times(dy, w, DType::f32); });
  const auto sums = with_thread_counts([&] {
    Matrix<float> sum = w;
    add_transposed_times(dy, x, sum);
    return sum;
  });
  for (std::size_t i = 1; i < forward.size(); ++i) {
    expect_same_bits(forward[0], forward[i], "x w^T");
    expect_same_bits(backward[0], backward[i], "dy w");
    expect_same_bits(sums[0], sums[i], "dy^T x");
  }
}

}  // namespace
}  // namespace qshard::reference
