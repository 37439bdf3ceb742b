#include "reference/dora.h"

#include "correctness/matrix_testing.h"
#include "reference/quantize.h"

namespace qshard::reference {
namespace {

constexpr double kScaling = 1.75;
constexpr Eigen::Index kTokens = 6, kIn = 8, kOut = 7, kRank = 3;

/// A layer of NF4 weights with a DoRA adapter.
template <typename T>
struct DoraLayer {
  Tensor dense;
  Weight4bit quantized;
  LinearWeights<T> linear;

  DoraLayer() {
    const Matrix<float> values = random_matrix<float>(kOut, kIn, 1);
    dense = from_floats({values.data(), static_cast<std::size_t>(values.size())}, DType::f32, {kOut, kIn});
    quantized = quantize(dense.view(), {.blocksize = 32}, "w");
    linear.quantized = quantized.view();
    linear.lora = Lora<T>{random_matrix<T>(kRank, kIn, 2), random_matrix<T>(kOut, kRank, 3)};
    linear.lora->magnitude = random_matrix<T>(kOut, 1, 4);
  }

  [[nodiscard]] Matrix<T> adapted_weight() const {
    return frozen_weight(linear, DType::f32) + static_cast<T>(kScaling) * linear.lora->b * linear.lora->a;
  }
};

TEST(Dora, WithoutDropoutTheWeightsRowsHaveTheirTrainedLengths) {
  const DoraLayer<double> layer;
  const Matrix<double> x = random_matrix<double>(kTokens, kIn, 5);
  Matrix<double> w = layer.adapted_weight();
  for (Eigen::Index row = 0; row < kOut; ++row) w.row(row) *= layer.linear.lora->magnitude(row) / w.row(row).norm();
  Matrix<double> y = linear4bit_forward(layer.linear, DType::f32, x);
  dora_forward(layer.linear, kScaling, DType::f32, x, y);
  expect_near<double, double>(x * w.transpose(), y, 1e-12, "y");
}

// PEFT drops from what the adapter reads and from what the frozen weight reads again, not from the layer's own input.
TEST(Dora, DropoutReachesBothOfItsTerms) {
  const DoraLayer<double> layer;
  const Lora<double>& lora = *layer.linear.lora;
  const Matrix<double> x = random_matrix<double>(kTokens, kIn, 6);
  const Matrix<double> dropped = random_matrix<double>(kTokens, kIn, 7);
  const Matrix<double> w = frozen_weight(layer.linear, DType::f32);
  const Matrix<double> adapted = layer.adapted_weight();
  Matrix<double> y = linear4bit_forward(layer.linear, DType::f32, x);
  dora_forward(layer.linear, kScaling, DType::f32, dropped, y);
  for (Eigen::Index t = 0; t < kTokens; ++t) {
    for (Eigen::Index i = 0; i < kOut; ++i) {
      const double scale = lora.magnitude(i) / adapted.row(i).norm();
      const double low_rank = lora.b.row(i).dot(lora.a * dropped.row(t).transpose());
      const double expected =
          w.row(i).dot(x.row(t)) + (scale - 1) * w.row(i).dot(dropped.row(t)) + scale * kScaling * low_rank;
      EXPECT_NEAR(y(t, i), expected, 1e-12);
    }
  }
}

TEST(Dora, ANewAdaptersMagnitudesChangeNothing) {
  DoraLayer<float> layer;
  layer.linear.lora->b.setZero();
  layer.linear.lora->magnitude = dora_norm(layer.linear, kScaling, DType::f32);
  const Matrix<float> w = frozen_weight(layer.linear, DType::f32);
  expect_near<float, float>(w.rowwise().norm(), layer.linear.lora->magnitude, 1e-6, "norms");
  const Matrix<float> x = random_matrix<float>(kTokens, kIn, 8);
  const Matrix<float> base = linear4bit_forward(layer.linear, DType::f32, x);
  Matrix<float> y = base;
  dora_forward(layer.linear, kScaling, DType::f32, x, y);
  expect_same_bits(base, y, "y");
}

// The norms are held where they are, as PEFT detaches them.
TEST(Dora, GradientsEqualCentralDifferencesWithTheNormsHeld) {
  DoraLayer<double> layer;
  Lora<double>& lora = *layer.linear.lora;
  const Matrix<double> w = frozen_weight(layer.linear, DType::f32);
  const Vector<double> norms = dora_norm(layer.linear, kScaling, DType::f32);
  Matrix<double> x = random_matrix<double>(kTokens, kIn, 9);
  const Matrix<double> dy = random_matrix<double>(kTokens, kOut, 10);
  Matrix<double> magnitude = lora.magnitude;
  const auto added = [&]() -> Matrix<double> {
    const Matrix<double> scales = magnitude.cwiseQuotient(norms);
    const Matrix<double> adapted = w + kScaling * lora.b * lora.a;
    return x * (scales.col(0).asDiagonal() * adapted - w).transpose();
  };
  Matrix<double> y = Matrix<double>::Zero(kTokens, kOut);
  dora_forward(layer.linear, kScaling, DType::f32, x, y);
  expect_near<double, double>(added(), y, 1e-12, "y");

  Lora<double> gradient = zeros_like(lora);
  const Matrix<double> dx = dora_backward(layer.linear, kScaling, DType::f32, x, dy, gradient);
  const auto f = [&] { return added().cwiseProduct(dy).sum(); };
  expect_gradient(f, x, dx, "x");
  expect_gradient(f, lora.a, gradient.a, "A");
  expect_gradient(f, lora.b, gradient.b, "B");
  expect_gradient(f, magnitude, gradient.magnitude, "m");
  Lora<double> twice = gradient;
  dora_backward(layer.linear, kScaling, DType::f32, x, dy, twice);
  expect_near<double, double>(2 * gradient.magnitude, twice.magnitude, 1e-12, "added");
}

TEST(Dora, DoesNotDependOnTheNumberOfThreads) {
  const DoraLayer<float> layer;
  const Matrix<float> x = random_matrix<float>(300, kIn, 11);
  const Matrix<float> dy = random_matrix<float>(300, kOut, 12);
  const auto results = with_thread_counts([&] {
    Matrix<float> y = Matrix<float>::Zero(300, kOut);
    dora_forward(layer.linear, kScaling, DType::bf16, x, y);
    Lora<float> gradient = zeros_like(*layer.linear.lora);
    const Matrix<float> dx = dora_backward(layer.linear, kScaling, DType::bf16, x, dy, gradient);
    return std::vector<Matrix<float>>{y, dx, gradient.a, gradient.b, gradient.magnitude};
  });
  for (std::size_t i = 1; i < results.size(); ++i) {
    for (std::size_t part = 0; part < results[0].size(); ++part) {
      expect_same_bits(results[0][part], results[i][part], "part");
    }
  }
}

}  // namespace
}  // namespace qshard::reference
