#include "reference/lora.h"

#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

template <typename T>
Lora<T> random_lora(Eigen::Index r, Eigen::Index in, Eigen::Index out, std::uint64_t seed) {
  return {random_matrix<T>(r, in, seed), random_matrix<T>(out, r, seed + 1)};
}

TEST(Lora, GradientsEqualCentralDifferences) {
  Matrix<double> x = random_matrix<double>(6, 5, 1);
  const Matrix<double> dy = random_matrix<double>(6, 7, 2);
  Lora<double> lora = random_lora<double>(3, 5, 7, 3);
  constexpr double kScaling = 1.75;
  const auto f = [&] {
    Matrix<double> y = Matrix<double>::Zero(6, 7);
    lora_forward(lora, kScaling, DType::f32, x, y);
    return y.cwiseProduct(dy).sum();
  };
  Lora<double> gradient = zeros_like(lora);
  const Matrix<double> dx = lora_backward(lora, kScaling, DType::f32, x, dy, gradient);
  expect_gradient(f, x, dx, "x");
  expect_gradient(f, lora.a, gradient.a, "A");
  expect_gradient(f, lora.b, gradient.b, "B");
}

TEST(Lora, ItsBiasIsScaledWithTheProductAndHasItsGradient) {
  Matrix<double> x = random_matrix<double>(6, 5, 21);
  const Matrix<double> dy = random_matrix<double>(6, 7, 22);
  Lora<double> lora = random_lora<double>(3, 5, 7, 23);
  Matrix<double> bias = random_matrix<double>(7, 1, 25);
  constexpr double kScaling = 1.75;
  const auto forward = [&] {
    lora.bias = bias;
    Matrix<double> y = Matrix<double>::Zero(6, 7);
    lora_forward(lora, kScaling, DType::f32, x, y);
    return y;
  };
  const Matrix<double> product = kScaling * (x * lora.a.transpose() * lora.b.transpose());
  const Matrix<double> expected = product.rowwise() + kScaling * bias.col(0).transpose();
  expect_near(expected, forward(), 1e-13, "y");
  const auto f = [&] { return forward().cwiseProduct(dy).sum(); };
  Lora<double> gradient = zeros_like(lora);
  const Matrix<double> dx = lora_backward(lora, kScaling, DType::f32, x, dy, gradient);
  expect_gradient(f, x, dx, "x");
  expect_gradient(f, lora.b, gradient.b, "B");
  expect_gradient(f, bias, gradient.bias, "bias");
}

TEST(Lora, AddsToWhatTheGradientsHold) {
  const Matrix<double> x = random_matrix<double>(4, 5, 5);
  const Matrix<double> dy = random_matrix<double>(4, 7, 6);
  const Lora<double> lora = random_lora<double>(2, 5, 7, 7);
  Lora<double> once = zeros_like(lora);
  lora_backward(lora, 2.0, DType::f32, x, dy, once);
  Lora<double> twice = once;
  lora_backward(lora, 2.0, DType::f32, x, dy, twice);
  expect_near<double, double>(2 * once.a, twice.a, 1e-12, "A");
  expect_near<double, double>(2 * once.b, twice.b, 1e-12, "B");
}

TEST(Lora, ZeroBLeavesTheBaseAndGivesNoGradientOfA) {
  const Matrix<float> x = random_matrix<float>(200, 33, 8);
  const Matrix<float> base = random_matrix<float>(200, 21, 9);
  Lora<float> lora = random_lora<float>(4, 33, 21, 10);
  lora.b.setZero();
  Matrix<float> y = base;
  lora_forward(lora, 2.0, DType::f32, x, y);
  expect_same_bits(base, y, "y");
  Lora<float> gradient = zeros_like(lora);
  const Matrix<float> dx = lora_backward(lora, 2.0, DType::f32, x, base, gradient);
  EXPECT_TRUE((gradient.a.array() == 0).all());
  EXPECT_TRUE((dx.array() == 0).all());
  EXPECT_TRUE((gradient.b.array() != 0).any());
}

float bf16(float value) {
  return to_float(from_float<bfloat16>(value));
}

// One token, one feature, r 1: each rounding written out, over values for which they all matter.
TEST(Lora, RoundsWherePeftRounds) {
  const Matrix<float> values = random_matrix<float>(400, 5, 11);
  int differs_without_inner_rounding = 0;
  for (Eigen::Index i = 0; i < values.rows(); ++i) {
    const float x = bf16(values(i, 0)), a = bf16(values(i, 1)), b = bf16(values(i, 2)), dy = bf16(values(i, 4));
    Matrix<float> y = Matrix<float>::Constant(1, 1, bf16(values(i, 3)));
    constexpr float kScaling = 1.3F;
    const float expected = bf16(y(0, 0) + bf16(bf16(bf16(x * a) * b) * kScaling));
    const float coarse = bf16(y(0, 0) + x * a * b * kScaling);
    differs_without_inner_rounding += static_cast<int>(expected != coarse);
    const auto one = [](float v) -> Matrix<float> { return Matrix<float>::Constant(1, 1, v); };
    const Lora<float> lora{one(a), one(b)};
    lora_forward(lora, kScaling, DType::bf16, one(x), y);
    EXPECT_EQ(y(0, 0), expected);
    Lora<float> gradient = zeros_like(lora);
    const float d = bf16(dy * kScaling);
    EXPECT_EQ(lora_backward(lora, kScaling, DType::bf16, one(x), one(dy), gradient)(0, 0), bf16(bf16(d * b) * a));
    EXPECT_EQ(gradient.b(0, 0), d * bf16(x * a));
    EXPECT_EQ(gradient.a(0, 0), bf16(d * b) * x);
  }
  EXPECT_GT(differs_without_inner_rounding, 20);
}

}  // namespace
}  // namespace qshard::reference
