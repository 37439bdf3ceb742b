#include "reference/swiglu.h"

#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

TEST(Swiglu, EqualsItsDefinition) {
  const Matrix<float> gate = 3 * random_matrix<float>(150, 19, 1);
  const Matrix<float> up = random_matrix<float>(150, 19, 2);
  const Matrix<float> y = swiglu_forward(gate, up, DType::f32);
  for (Eigen::Index i = 0; i < gate.size(); ++i) {
    const double g = gate.data()[i];
    const double expected = g / (1 + std::exp(-g)) * up.data()[i];
    // exp in float is within 2 ulp, and four more roundings.
    const double difference = std::abs(y.data()[i] - expected);
    ASSERT_TRUE(difference <= 0x1p-24 * 10 * std::abs(expected)) << g << " gave " << y.data()[i];
  }
}

TEST(Swiglu, SaturatesWithoutOverflow) {
  Matrix<float> gate(1, 4);
  gate << 1000, -1000, 100, -100;
  const Matrix<float> one = Matrix<float>::Ones(1, 4);
  const Matrix<float> y = swiglu_forward(gate, one, DType::f32);
  EXPECT_EQ(y(0, 0), 1000);
  EXPECT_EQ(y(0, 2), 100);
  EXPECT_TRUE(std::abs(y(0, 1)) < 1e-30F && std::abs(y(0, 3)) < 1e-30F);
  const SwigluGradients<float> gradients = swiglu_backward(gate, one, DType::f32, one);
  EXPECT_TRUE(gradients.gate.allFinite() && gradients.up.allFinite());
}

TEST(Swiglu, RoundsSiluAndTheProduct) {
  const Matrix<float> gate = random_matrix<float>(2, 16, 3);
  const Matrix<float> up = random_matrix<float>(2, 16, 4);
  Matrix<float> expected = swiglu_forward<float>(gate, Matrix<float>::Ones(2, 16), DType::bf16).cwiseProduct(up);
  round_to(DType::bf16, expected);
  expect_same_bits(expected, swiglu_forward(gate, up, DType::bf16), "bf16");
}

TEST(Swiglu, GradientsEqualCentralDifferences) {
  Matrix<double> gate = 2 * random_matrix<double>(3, 9, 5);
  Matrix<double> up = random_matrix<double>(3, 9, 6);
  const Matrix<double> dy = random_matrix<double>(3, 9, 7);
  const auto f = [&] { return swiglu_forward(gate, up, DType::f32).cwiseProduct(dy).sum(); };
  const SwigluGradients<double> gradients = swiglu_backward(gate, up, DType::f32, dy);
  expect_gradient(f, gate, gradients.gate, "gate");
  expect_gradient(f, up, gradients.up, "up");
}

}  // namespace
}  // namespace qshard::reference
