#include "reference/linear4bit.h"

#include "correctness/expect_error.h"
#include "correctness/matrix_testing.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::reference {
namespace {

constexpr Eigen::Index kOut = 24;
constexpr Eigen::Index kIn = 40;

Tensor weight_tensor(DType dtype) {
  const Matrix<float> w = random_matrix<float>(kOut, kIn, 1);
  return from_floats({w.data(), static_cast<std::size_t>(w.size())}, dtype, {kOut, kIn});
}

Weight4bit quantized_weight() {
  return quantize(weight_tensor(DType::bf16).view(), {}, "w");
}

LinearWeights<float> linear4bit(const Weight4bit& weight) {
  return {weight.view(), {}, {}};
}

TEST(Linear4bit, UsesTheDequantizedWeightInBothDirections) {
  const Weight4bit weight = quantized_weight();
  const Matrix<float> x = random_matrix<float>(150, kIn, 2);
  const Matrix<float> dy = random_matrix<float>(150, kOut, 3);
  for (const DType compute : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor plain = dequantize(weight.view(), compute);
    const std::vector<float> values = to_floats(plain.view());
    const Eigen::Map<const Matrix<float>> w(values.data(), kOut, kIn);
    Matrix<float> y = x * w.transpose();
    Matrix<float> dx = dy * w;
    round_to(compute, y);
    round_to(compute, dx);
    // The order of a sum of 40 float products, and one step of the compute dtype where it tips a rounding.
    const double step = compute == DType::f32 ? 0 : (compute == DType::bf16 ? 0x1p-7 : 0x1p-10);
    const double bound = 40 * 40 * 0x1p-24 + step * std::max(y.cwiseAbs().maxCoeff(), dx.cwiseAbs().maxCoeff());
    expect_near(y, linear4bit_forward(linear4bit(weight), compute, x), bound, "y");
    expect_near(dx, linear4bit_backward(linear4bit(weight), compute, dy), bound, "dx");
  }
}

TEST(Linear4bit, TakesDenseWeightsOfEveryFloatingDtype) {
  const Matrix<float> x = Matrix<float>::Identity(kIn, kIn);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor tensor = weight_tensor(dtype);
    const LinearWeights<float> weights{{}, tensor.view(), {}};
    const std::vector<float> values = to_floats(tensor.view());
    const Matrix<float> transposed = Eigen::Map<const Matrix<float>>(values.data(), kOut, kIn).transpose();
    expect_same_bits(transposed, linear4bit_forward(weights, DType::f32, x), "x W^T for the identity");
  }
}

TEST(Linear4bit, RoundsADenseWeightToTheComputeDtype) {
  const Tensor tensor = weight_tensor(DType::f32);
  const LinearWeights<float> weights{{}, tensor.view(), {}};
  Matrix<float> expected = frozen_weight(weights, DType::f32);
  round_to(DType::bf16, expected);
  expect_same_bits(expected, frozen_weight(weights, DType::bf16), "bf16");
}

TEST(Linear4bit, GradientOfTheInputEqualsCentralDifferences) {
  const Weight4bit weight = quantized_weight();
  const LinearWeights<double> weights{weight.view(), {}, {}};
  Matrix<double> x = random_matrix<double>(3, kIn, 4);
  const Matrix<double> dy = random_matrix<double>(3, kOut, 5);
  const auto f = [&] { return linear4bit_forward(weights, DType::f32, x).cwiseProduct(dy).sum(); };
  expect_gradient(f, x, linear4bit_backward(weights, DType::f32, dy), "x");
}

TEST(Linear4bit, RefusesWhatIsNoMatrix) {
  const Tensor vector(DType::f32, {kIn});
  const Tensor integers(DType::i32, {kOut, kIn});
  expect_bad_input({"two dimensions"}, [&] { to_matrix<float>(vector.view(), DType::f32); });
  expect_bad_input({"int32", "floating"}, [&] { to_matrix<float>(integers.view(), DType::f32); });
  Weight4bit flat = quantize(weight_tensor(DType::bf16).view(), {}, "w");
  flat.info.shape = {kOut * kIn};
  expect_bad_input({"two dimensions"}, [&] { frozen_weight(linear4bit(flat), DType::f32); });
}

}  // namespace
}  // namespace qshard::reference
