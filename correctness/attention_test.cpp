#include "reference/attention.h"

#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

constexpr AttentionShape kShape{.heads = 4, .kv_heads = 2, .head_dim = 6};

constexpr AttentionShape with_window(std::int64_t window) {
  AttentionShape shape = kShape;
  shape.window = window;
  return shape;
}

/// The definition with plain loops in double, one query at a time.
Matrix<double> plain_attention(const TokenBatch& batch, const AttentionShape& shape, const Matrix<double>& query,
                               const Matrix<double>& key, const Matrix<double>& value) {
  const std::int64_t d = shape.head_dim;
  Matrix<double> out = Matrix<double>::Zero(query.rows(), query.cols());
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    for (std::int64_t i = batch.offsets[row]; i < batch.offsets[row + 1]; ++i) {
      for (std::int64_t head = 0; head < shape.heads; ++head) {
        const std::int64_t kv_head = head * shape.kv_heads / shape.heads;
        double total = 0;
        const std::int64_t first = shape.window == 0 ? 0 : i - shape.window + 1;
        for (std::int64_t j = std::max(batch.offsets[row], first); j <= i; ++j) {
          double score = 0;
          for (std::int64_t c = 0; c < d; ++c) score += query(i, head * d + c) * key(j, kv_head * d + c);
          const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
          total += weight;
          for (std::int64_t c = 0; c < d; ++c) out(i, head * d + c) += weight * value(j, kv_head * d + c);
        }
        for (std::int64_t c = 0; c < d; ++c) out(i, head * d + c) /= total;
      }
    }
  }
  return out;
}

struct Inputs {
  explicit Inputs(const std::vector<std::int64_t>& lengths, std::uint64_t seed)
      : batch(random_batch(lengths, 10, seed)),
        query(random_matrix<double>(batch.tokens(), kShape.heads * kShape.head_dim, seed + 1)),
        key(random_matrix<double>(batch.tokens(), kShape.kv_heads * kShape.head_dim, seed + 2)),
        value(random_matrix<double>(batch.tokens(), kShape.kv_heads * kShape.head_dim, seed + 3)),
        dout(random_matrix<double>(batch.tokens(), kShape.heads * kShape.head_dim, seed + 4)) {}
  TokenBatch batch;
  Matrix<double> query, key, value, dout;
};

// Rows of one token, of none, within one tile of 128 queries, and over several.
const std::vector<std::int64_t> kLengths{5, 1, 0, 128, 300};

// Windows of one key, shorter and longer than a tile of 128 queries, and longer than every row.
TEST(Attention, EqualsItsDefinition) {
  const Inputs in(kLengths, 1);
  for (const std::int64_t window : {0, 1, 5, 128, 140, 1000}) {
    SCOPED_TRACE(window);
    const AttentionShape shape = with_window(window);
    const Matrix<double> expected = plain_attention(in.batch, shape, in.query, in.key, in.value);
    // In double only the order of sums of at most 300 terms differs.
    expect_near(expected, attention_forward(in.batch, shape, DType::f32, in.query, in.key, in.value), 1e-12, "double");
    // In float: weights off by the rounding of scores up to about 10 (10 x 2^-24 x a few), sums of 300 terms.
    const Matrix<float> in_float = attention_forward<float>(in.batch, shape, DType::f32, in.query.cast<float>(),
                                                            in.key.cast<float>(), in.value.cast<float>());
    expect_near(expected, in_float, 2e-5, "float");
  }
}

TEST(Attention, KeysBeforeTheWindowChangeNothing) {
  Inputs in({300}, 8);
  const AttentionShape shape = with_window(20);
  const auto before = attention_forward(in.batch, shape, DType::f32, in.query, in.key, in.value);
  in.key.row(150).setConstant(7);
  in.value.row(150).setConstant(7);
  const auto after = attention_forward(in.batch, shape, DType::f32, in.query, in.key, in.value);
  EXPECT_EQ(before.topRows(150), after.topRows(150));
  for (Eigen::Index i = 150; i < 170; ++i) EXPECT_NE(before.row(i), after.row(i)) << i;
  EXPECT_EQ(before.bottomRows(130), after.bottomRows(130));
}

TEST(Attention, LaterTokensAndOtherRowsChangeNothing) {
  Inputs in({40, 140}, 2);
  const auto before = attention_forward(in.batch, kShape, DType::f32, in.query, in.key, in.value);
  in.key.bottomRows(1).setConstant(7);
  in.value.bottomRows(1).setConstant(7);
  const auto after = attention_forward(in.batch, kShape, DType::f32, in.query, in.key, in.value);
  const Eigen::Index earlier = in.query.rows() - 1;
  EXPECT_EQ(before.topRows(earlier), after.topRows(earlier));
  EXPECT_NE(before.bottomRows(1), after.bottomRows(1));
}

TEST(Attention, SurvivesHugeScores) {
  Inputs in({9}, 3);
  in.query *= 1e6;
  EXPECT_TRUE(attention_forward(in.batch, kShape, DType::f32, in.query, in.key, in.value).allFinite());
  const auto gradients = attention_backward(in.batch, kShape, DType::f32, in.query, in.key, in.value, in.dout);
  EXPECT_TRUE(gradients.query.allFinite() && gradients.key.allFinite() && gradients.value.allFinite());
}

TEST(Attention, GradientsEqualCentralDifferences) {
  for (const std::int64_t window : {0, 3}) {
    SCOPED_TRACE(window);
    const AttentionShape shape = with_window(window);
    Inputs in({5, 1, 7}, 4);
    const auto f = [&] {
      return attention_forward(in.batch, shape, DType::f32, in.query, in.key, in.value).cwiseProduct(in.dout).sum();
    };
    const auto gradients = attention_backward(in.batch, shape, DType::f32, in.query, in.key, in.value, in.dout);
    expect_gradient(f, in.query, gradients.query, "query");
    expect_gradient(f, in.key, gradients.key, "key");
    expect_gradient(f, in.value, gradients.value, "value");
  }
}

TEST(Attention, GradientsAcrossTilesEqualCentralDifferences) {
  for (const std::int64_t window : {0, 30}) {
    SCOPED_TRACE(window);
    const AttentionShape shape = with_window(window);
    Inputs in({261}, 5);
    const auto gradients = attention_backward(in.batch, shape, DType::f32, in.query, in.key, in.value, in.dout);
    for (Matrix<double>* x : {&in.query, &in.key, &in.value}) {
      const Matrix<double>& gradient =
          x == &in.query ? gradients.query : (x == &in.key ? gradients.key : gradients.value);
      const Matrix<double> direction = random_matrix<double>(x->rows(), x->cols(), 6);
      const Matrix<double> at = *x;
      Matrix<double> step = Matrix<double>::Zero(1, 1);
      const auto along = [&] {
        *x = at + step(0, 0) * direction;
        return attention_forward(in.batch, shape, DType::f32, in.query, in.key, in.value).cwiseProduct(in.dout).sum();
      };
      const Matrix<double> slope = Matrix<double>::Constant(1, 1, gradient.cwiseProduct(direction).sum());
      expect_gradient(along, step, slope, "along a random direction");
      *x = at;
    }
  }
}

TEST(Attention, DoesNotDependOnTheNumberOfThreads) {
  const Inputs in(kLengths, 7);
  const Matrix<float> query = in.query.cast<float>(), key = in.key.cast<float>(), value = in.value.cast<float>();
  const Matrix<float> dout = in.dout.cast<float>();
  const auto out =
      with_thread_counts([&] { return attention_forward(in.batch, kShape, DType::f32, query, key, value); });
  const auto gradients =
      with_thread_counts([&] { return attention_backward(in.batch, kShape, DType::f32, query, key, value, dout); });
  for (std::size_t i = 1; i < out.size(); ++i) {
    expect_same_bits(out[0], out[i], "out");
    expect_same_bits(gradients[0].query, gradients[i].query, "query");
    expect_same_bits(gradients[0].key, gradients[i].key, "key");
    expect_same_bits(gradients[0].value, gradients[i].value, "value");
  }
}

}  // namespace
}  // namespace qshard::reference
