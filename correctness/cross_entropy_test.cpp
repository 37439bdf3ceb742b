#include "reference/cross_entropy.h"

#include <limits>

#include <fmt/format.h>

#include "core/training/token_batch.h"
#include "correctness/expect_error.h"
#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

const std::vector<std::int32_t> kLabels{3, kIgnoredLabel, 0, 12, 5};

double log_sum_exp_loss(const Matrix<float>& logits, const std::vector<std::int32_t>& labels) {
  double sum = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] == kIgnoredLabel) continue;
    double total = 0;
    for (Eigen::Index j = 0; j < logits.cols(); ++j) total += std::exp(static_cast<double>(logits(row, j)));
    sum += std::log(total) - logits(row, labels[row]);
  }
  return sum;
}

TEST(CrossEntropy, EqualsLogSumExpInDouble) {
  const Matrix<float> logits = 4 * random_matrix<float>(5, 13, 1);
  const double expected = log_sum_exp_loss(logits, kLabels);
  // Four losses of up to about 20, each off by a few roundings of 2^-24.
  EXPECT_NEAR(cross_entropy<float>(logits, kLabels, 1, DType::f32, nullptr), expected, 4 * 20 * 8 * 0x1p-24);
  EXPECT_NEAR(cross_entropy<double>(logits.cast<double>(), kLabels, 1, DType::f32, nullptr), expected, 1e-12);
}

TEST(CrossEntropy, HugeLogitsDoNotOverflow) {
  Matrix<float> logits(3, 3);
  logits << 3e38F, 0, -1e38F, -3e38F, -3e38F, -3e38F, 1e4F, 0, 0;
  Matrix<float> gradient;
  const std::vector<std::int32_t> labels{0, 1, 1};
  const double sum = cross_entropy<float>(logits, labels, 1, DType::f32, &gradient);
  EXPECT_NEAR(sum, 0 + std::log(3.0) + 1e4, 1e-3);  // 1e4 in float has steps of 1e-3
  Matrix<float> expected(3, 3);
  expected << 0, 0, 0, 1 / 3.0F, -2 / 3.0F, 1 / 3.0F, 1, -1, 0;
  expect_near(expected, gradient, 1e-6, "gradient");
}

TEST(CrossEntropy, NanStaysNan) {
  for (Eigen::Index where = 0; where < 13; ++where) {
    Matrix<float> logits = random_matrix<float>(1, 13, 2);
    logits(0, where) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(cross_entropy<float>(logits, std::vector<std::int32_t>{4}, 1, DType::f32, nullptr)));
  }
}

TEST(CrossEntropy, IgnoredRowsCountNothing) {
  const Matrix<float> logits = random_matrix<float>(2, 6, 3);
  Matrix<float> gradient = Matrix<float>::Constant(2, 6, std::numeric_limits<float>::quiet_NaN());
  const std::vector<std::int32_t> labels{kIgnoredLabel, kIgnoredLabel};
  EXPECT_EQ(cross_entropy<float>(logits, labels, 1, DType::f32, &gradient), 0.0);
  EXPECT_TRUE((gradient.array() == 0).all());
}

TEST(CrossEntropy, GradientEqualsCentralDifferences) {
  Matrix<double> logits = random_matrix<double>(5, 13, 4);
  constexpr double kScale = 0.25;
  const auto f = [&] { return kScale * cross_entropy<double>(logits, kLabels, kScale, DType::f32, nullptr); };
  Matrix<double> gradient;
  cross_entropy<double>(logits, kLabels, kScale, DType::f32, &gradient);
  expect_gradient(f, logits, gradient, "logits");
}

TEST(CrossEntropy, GradientMayReplaceTheLogits) {
  Matrix<float> logits = random_matrix<float>(5, 13, 5);
  Matrix<float> apart;
  const double sum = cross_entropy<float>(logits, kLabels, 0.5, DType::bf16, &apart);
  EXPECT_EQ(sum, cross_entropy<float>(logits, kLabels, 0.5, DType::bf16, &logits));
  expect_same_bits(apart, logits, "gradient in place");
}

TEST(CrossEntropy, RefusesLabelsOutsideTheVocabulary) {
  const Matrix<float> logits = random_matrix<float>(1, 6, 6);
  for (const std::int32_t label : {6, -1, -99, std::numeric_limits<std::int32_t>::min()}) {
    expect_bad_input({fmt::format("label {}", label)},
                     [&] { cross_entropy<float>(logits, std::vector<std::int32_t>{label}, 1, DType::f32, nullptr); });
  }
}

}  // namespace
}  // namespace qshard::reference
