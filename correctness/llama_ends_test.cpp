#include "reference/llama_ends.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "correctness/expect_error.h"
#include "correctness/small_llama.h"

namespace qshard::reference {
namespace {

TEST(LlamaEnds, EmbedsRowsOfTheTable) {
  const SmallLlama<float> model(DType::f32, 0);
  const Matrix<float> x = embed(model.ends, model.batch);
  const Matrix<float> table = to_matrix<float>(model.ends.embedding, DType::f32);
  ASSERT_EQ(x.rows(), model.batch.tokens());
  for (Eigen::Index token = 0; token < x.rows(); ++token) {
    EXPECT_EQ(x.row(token), table.row(model.batch.input_ids[static_cast<std::size_t>(token)]));
  }
}

TEST(LlamaEnds, RefusesIdsOutsideTheVocabulary) {
  for (const std::int32_t id : {SmallLlama<float>::kVocabulary, -1, std::numeric_limits<std::int32_t>::min()}) {
    SmallLlama<float> model(DType::f32, 0);
    model.batch.input_ids[8] = id;  // row 2, position 2
    try {
      embed(model.ends, model.batch);
      FAIL() << id << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_input);
      EXPECT_NE(std::string(error.what()).find("row 2, position 2"), std::string::npos) << error.what();
    }
    if (id == kIgnoredLabel) continue;
    model.batch.labels[8] = id;
    const Matrix<float> x = random_matrix<float>(model.batch.tokens(), 16, 1);
    expect_bad_input({"row 2, position 2", fmt::format("label {}", id), "vocabulary of 11"},
                     [&] { output_loss<float>(model.context, model.ends, x, 1, nullptr); });
  }
}

/// The loss by its definition: logits of every position in double, shifted labels, log-sum-exp.
double plain_loss(const SmallLlama<double>& model, const Matrix<double>& x) {
  const Matrix<double> logits = output_logits(model.context, model.ends, x);
  const TokenBatch& batch = model.batch;
  double sum = 0;
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    for (std::int64_t t = batch.offsets[row]; t + 1 < batch.offsets[row + 1]; ++t) {
      const std::int32_t label = batch.labels[static_cast<std::size_t>(t + 1)];
      if (label == kIgnoredLabel) continue;
      sum += std::log(logits.row(t).array().exp().sum()) - logits(t, label);
    }
  }
  return sum;
}

TEST(LlamaEnds, LossEqualsItsDefinitionOverSeveralPieces) {
  SmallLlama<double> model(DType::f32, 0);
  model.batch = random_batch({300, 1, 0, 200}, SmallLlama<double>::kVocabulary, 2);
  const Matrix<double> x = random_matrix<double>(501, 16, 3);
  const double expected = plain_loss(model, x);
  EXPECT_GT(expected, 100);
  EXPECT_NEAR(output_loss<double>(model.context, model.ends, x, 1, nullptr), expected, 1e-10 * expected);
  const Matrix<float> x_float = x.cast<float>();
  const SmallLlama<float> in_float(DType::f32, 0);
  LayerContext<float> context = in_float.context;
  context.batch = &model.batch;
  // Each token's loss is off by a few dozen roundings of 2^-24, mostly of either sign.
  EXPECT_NEAR(output_loss<float>(context, in_float.ends, x_float, 1, nullptr), expected, 1e-5 * expected);
}

TEST(LlamaEnds, GradientEqualsCentralDifferences) {
  const SmallLlama<double> model(DType::f32, 0);
  Matrix<double> x = random_matrix<double>(model.batch.tokens(), 16, 4);
  constexpr double kScale = 0.125;
  const auto f = [&] { return kScale * output_loss<double>(model.context, model.ends, x, kScale, nullptr); };
  Matrix<double> dx = Matrix<double>::Constant(1, 1, std::nan(""));
  output_loss(model.context, model.ends, x, kScale, &dx);
  expect_gradient(f, x, dx, "x");
}

/// Holds `gradient` to differences of f() in every element of a table of floats, each divided by the step that the
/// element really took. The error is 2^-20 / 6 times the third derivative.
template <typename Function>
void expect_table_gradient(const Function& f, Tensor& table, const Matrix<double>& gradient, const char* what) {
  const ThreadCount one(1);
  const auto values = table.as<float>();
  ASSERT_EQ(values.size(), static_cast<std::size_t>(gradient.size())) << what;
  const double bound = 1e-5 * (1 + gradient.cwiseAbs().maxCoeff());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    const float high = value + 0x1p-10F;
    const float low = value - 0x1p-10F;
    values[i] = high;
    const double above = f();
    values[i] = low;
    const double below = f();
    values[i] = value;
    const double slope = (above - below) / (static_cast<double>(high) - low);
    ASSERT_TRUE(std::abs(slope - gradient.data()[i]) <= bound)
        << what << " " << i << ": " << slope << " against " << gradient.data()[i];
  }
}

Tensor random_table(std::uint64_t seed) {
  const Matrix<float> values = random_matrix<float>(SmallLlama<double>::kVocabulary, 16, seed);
  return from_floats({values.data(), static_cast<std::size_t>(values.size())}, DType::f32,
                     {SmallLlama<double>::kVocabulary, 16});
}

TEST(LlamaEnds, HeadGradientEqualsDifferencesOverSeveralPiecesAndAdds) {
  SmallLlama<double> model(DType::f32, 0);
  model.batch = random_batch({150, 3, 40}, SmallLlama<double>::kVocabulary, 8);
  Tensor head = random_table(9);
  model.ends.output_head = head.view();
  const Matrix<double> x = random_matrix<double>(193, 16, 10);
  constexpr double kScale = 0.0625;
  Matrix<double> dx;
  Matrix<double> dx_alone;
  Matrix<double> gradient = Matrix<double>::Zero(SmallLlama<double>::kVocabulary, 16);
  const double loss = output_loss(model.context, model.ends, x, kScale, &dx, &gradient);
  EXPECT_EQ(loss, output_loss(model.context, model.ends, x, kScale, &dx_alone));
  expect_same_bits(dx_alone, dx, "dx");
  expect_table_gradient([&] { return kScale * output_loss<double>(model.context, model.ends, x, kScale, nullptr); },
                        head, gradient, "head");
  Matrix<double> twice = gradient;
  output_loss(model.context, model.ends, x, kScale, &dx, &twice);
  expect_near<double, double>(2 * gradient, twice, 1e-12, "added");
}

// Tokens come back in several rows; some ids of the vocabulary never do.
TEST(LlamaEnds, EmbeddingGradientEqualsDifferencesAndAdds) {
  SmallLlama<double> model(DType::f32, 0);
  Tensor embedding = random_table(11);
  model.ends.embedding = embedding.view();
  const Matrix<double> dy = random_matrix<double>(model.batch.tokens(), 16, 12);
  Matrix<double> gradient = Matrix<double>::Zero(SmallLlama<double>::kVocabulary, 16);
  embed_backward(model.batch, dy, gradient);
  expect_table_gradient([&] { return embed(model.ends, model.batch).cwiseProduct(dy).sum(); }, embedding, gradient,
                        "embedding");
  Matrix<double> twice = gradient;
  embed_backward(model.batch, dy, twice);
  expect_near<double, double>(2 * gradient, twice, 1e-12, "added");
}

TEST(LlamaEnds, BatchWithoutLabelsHasNoLoss) {
  SmallLlama<float> model(DType::f32, 0);
  std::fill(model.batch.labels.begin(), model.batch.labels.end(), kIgnoredLabel);
  const Matrix<float> x = random_matrix<float>(model.batch.tokens(), 16, 5);
  Matrix<float> dx;
  EXPECT_EQ(output_loss(model.context, model.ends, x, 1, &dx), 0.0);
  EXPECT_EQ(dx, Matrix<float>::Zero(x.rows(), x.cols()));
}

TEST(LlamaEnds, DoesNotDependOnTheNumberOfThreads) {
  SmallLlama<float> model(DType::f32, 0);
  model.batch = random_batch({300, 200}, SmallLlama<float>::kVocabulary, 6);
  const Matrix<float> x = random_matrix<float>(500, 16, 7);
  Matrix<float> dx;
  const auto sums = with_thread_counts([&] { return output_loss(model.context, model.ends, x, 1, &dx); });
  const auto gradients = with_thread_counts([&] {
    output_loss(model.context, model.ends, x, 1, &dx);
    return dx;
  });
  for (std::size_t i = 1; i < sums.size(); ++i) {
    EXPECT_EQ(sums[0], sums[i]);
    expect_same_bits(gradients[0], gradients[i], "dx");
  }
}

}  // namespace
}  // namespace qshard::reference
