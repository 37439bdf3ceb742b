#include "reference/rmsnorm.h"

#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

constexpr double kEpsilon = 1e-5;

TEST(RmsNorm, EqualsItsDefinition) {
  const Matrix<float> x = random_matrix<float>(200, 37, 1);
  const Vector<float> weight = random_matrix<float>(37, 1, 2);
  const Matrix<float> y = rmsnorm_forward(x, weight, kEpsilon, DType::f32);
  for (Eigen::Index token = 0; token < x.rows(); ++token) {
    double squares = 0;
    for (Eigen::Index i = 0; i < x.cols(); ++i) squares += static_cast<double>(x(token, i)) * x(token, i);
    for (Eigen::Index i = 0; i < x.cols(); ++i) {
      const double expected = weight(i) * (x(token, i) / std::sqrt(squares / 37 + kEpsilon));
      // 37 roundings in the sum, half of which the root keeps, and four more.
      const double difference = std::abs(y(token, i) - expected);
      ASSERT_TRUE(difference <= 0x1p-24 * 24 * std::abs(expected)) << token << ", " << i;
    }
  }
}

// A weight of one head normalizes each head as a row of its own.
TEST(RmsNorm, HeadsAreRowsOfTheirOwn) {
  const Matrix<float> x = random_matrix<float>(150, 3 * 6, 8);
  const Matrix<float> dy = random_matrix<float>(150, 3 * 6, 9);
  const Vector<float> weight = random_matrix<float>(6, 1, 10);
  const auto as_rows = [](const Matrix<float>& heads) {
    return Matrix<float>(Eigen::Map<const Matrix<float>>(heads.data(), heads.size() / 6, 6));
  };
  const Matrix<float> y = rmsnorm_forward(x, weight, kEpsilon, DType::bf16);
  EXPECT_EQ(as_rows(y), rmsnorm_forward(as_rows(x), weight, kEpsilon, DType::bf16));
  const Matrix<float> dx = rmsnorm_backward(x, weight, kEpsilon, DType::f32, dy);
  expect_near(rmsnorm_backward(as_rows(x), weight, kEpsilon, DType::f32, as_rows(dy)), as_rows(dx), 1e-6, "dx");
}

TEST(RmsNorm, RowOfZerosStaysZero) {
  const Matrix<float> x = Matrix<float>::Zero(1, 8);
  const Vector<float> weight = Vector<float>::Ones(8);
  EXPECT_EQ(rmsnorm_forward(x, weight, kEpsilon, DType::f32), x);
  EXPECT_TRUE(rmsnorm_backward(x, weight, kEpsilon, DType::f32, x).allFinite());
}

TEST(RmsNorm, RoundsBeforeAndAfterTheWeight) {
  const Matrix<float> x = random_matrix<float>(3, 16, 3);
  const Vector<float> weight = random_matrix<float>(16, 1, 4);
  const Matrix<float> y = rmsnorm_forward(x, weight, kEpsilon, DType::bf16);
  const Matrix<float> unweighted = rmsnorm_forward<float>(x, Vector<float>::Ones(16), kEpsilon, DType::bf16);
  Matrix<float> expected = unweighted * weight.asDiagonal();
  round_to(DType::bf16, expected);
  expect_same_bits(expected, y, "bf16");
}

TEST(RmsNorm, GradientEqualsCentralDifferences) {
  Matrix<double> x = random_matrix<double>(3, 11, 5);
  const Vector<double> weight = random_matrix<double>(11, 1, 6);
  const Matrix<double> dy = random_matrix<double>(3, 11, 7);
  const auto f = [&] { return rmsnorm_forward(x, weight, kEpsilon, DType::f32).cwiseProduct(dy).sum(); };
  expect_gradient(f, x, rmsnorm_backward(x, weight, kEpsilon, DType::f32, dy), "x");
}

}  // namespace
}  // namespace qshard::reference
