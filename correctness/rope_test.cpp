#include "reference/rope.h"

#include <complex>

#include "correctness/expect_error.h"
#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.head_dim = 8;
  config.rope.theta = 10000;
  return config;
}

TEST(Rope, RotatesComplexNumbers) {
  const ModelConfig config = small_config();
  const TokenBatch batch = random_batch({200, 3}, 10, 1);
  const RopeTable<float> table = make_rope_table<float>(config, 256, DType::f32);
  const Matrix<float> x = random_matrix<float>(batch.tokens(), 24, 2);  // three heads
  Matrix<float> y = x;
  rope_forward(batch, table, DType::f32, y);
  for (std::int64_t token = 0; token < batch.tokens(); ++token) {
    const std::int64_t position = token < 200 ? token : token - 200;
    for (std::int64_t head = 0; head < 24; head += 8) {
      for (std::int64_t i = 0; i < 4; ++i) {
        const double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(i) / 8);
        const std::complex<double> in(x(token, head + i), x(token, head + i + 4));
        const std::complex<double> expected = in * std::polar(1.0, angle);
        const std::complex<double> got(y(token, head + i), y(token, head + i + 4));
        // The angle in float is off by up to three roundings (power, reciprocal, product), the rotation by three more.
        ASSERT_TRUE(std::abs(got - expected) <= 0x1p-24 * (3 * angle + 4) * std::abs(in)) << token << ", " << i;
      }
    }
  }
}

TEST(Rope, BackwardUndoesForward) {
  const TokenBatch batch = random_batch({50, 9}, 10, 3);
  const RopeTable<double> table = make_rope_table<double>(small_config(), 64, DType::f32);
  const Matrix<double> x = random_matrix<double>(batch.tokens(), 16, 4);
  Matrix<double> y = x;
  rope_forward(batch, table, DType::f32, y);
  EXPECT_GT((y - x).cwiseAbs().maxCoeff(), 0.1);
  rope_backward(batch, table, DType::f32, y);
  // cos^2 + sin^2 of float values is 1 within 2^-23.
  expect_near(x, y, 0x1p-22 * 5, "x");
}

TEST(Rope, GradientEqualsCentralDifferences) {
  const TokenBatch batch = random_batch({5, 1, 3}, 10, 5);
  const RopeTable<double> table = make_rope_table<double>(small_config(), 5, DType::f32);
  Matrix<double> x = random_matrix<double>(9, 16, 6);
  const Matrix<double> dy = random_matrix<double>(9, 16, 7);
  const auto f = [&] {
    Matrix<double> y = x;
    rope_forward(batch, table, DType::f32, y);
    return y.cwiseProduct(dy).sum();
  };
  Matrix<double> dx = dy;
  rope_backward(batch, table, DType::f32, dx);
  expect_gradient(f, x, dx, "x");
}

TEST(Rope, RoundsTableProductsAndSums) {
  const TokenBatch batch = random_batch({30}, 10, 8);
  const RopeTable<float> table = make_rope_table<float>(small_config(), 30, DType::bf16);
  Matrix<float> x = random_matrix<float>(30, 8, 9);
  round_to(DType::bf16, x);
  Matrix<float> y = x;
  rope_forward(batch, table, DType::bf16, y);
  const auto bf16 = [](float v) { return to_float(from_float<bfloat16>(v)); };
  for (std::int64_t t = 0; t < 30; ++t) {
    for (std::int64_t i = 0; i < 4; ++i) {
      const float cos = table.cos(t, i), sin = table.sin(t, i);
      EXPECT_EQ(cos, bf16(cos));
      EXPECT_EQ(y(t, i), bf16(bf16(x(t, i) * cos) - bf16(x(t, i + 4) * sin)));
      EXPECT_EQ(y(t, i + 4), bf16(bf16(x(t, i + 4) * cos) + bf16(x(t, i) * sin)));
    }
  }
}

TEST(Rope, RefusesARowLongerThanTheTable) {
  const TokenBatch batch = random_batch({2, 6}, 10, 10);
  const RopeTable<float> table = make_rope_table<float>(small_config(), 5, DType::f32);
  Matrix<float> x = random_matrix<float>(8, 8, 11);
  expect_bad_input({"row 1", "6 tokens", "5 positions"}, [&] { rope_forward(batch, table, DType::f32, x); });
}

}  // namespace
}  // namespace qshard::reference
