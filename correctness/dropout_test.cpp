#include "reference/dropout.h"

#include "core/tensor/philox.h"
#include "correctness/expect_error.h"
#include "correctness/matrix_testing.h"

namespace qshard::reference {
namespace {

using Words = std::array<std::uint32_t, 4>;

Matrix<float> mask(const DropoutPlace& place, double probability, const TokenBatch& batch, Eigen::Index features) {
  Matrix<float> ones = Matrix<float>::Ones(batch.tokens(), features);
  dropout(place, probability, batch, DType::f32, ones);
  return ones;
}

const DropoutPlace kPlace{.seed = 0x123456789abcdef0, .step = 7, .layer = 3, .projection = 5};

TEST(Dropout, KeepsTheStatedShareAndScale) {
  const TokenBatch batch = random_batch({400, 600}, 10, 1);
  for (const double probability : {0.05, 0.1, 0.5, 0.9}) {
    const Matrix<float> kept = mask(kPlace, probability, batch, 256);
    const auto scale = static_cast<float>(1 / (1 - probability));
    EXPECT_TRUE((kept.array() == 0 || kept.array() == scale).all());
    const auto elements = static_cast<double>(kept.size());
    const double share = static_cast<double>((kept.array() != 0).count()) / elements;
    // Five standard deviations of a binomial share.
    EXPECT_NEAR(share, 1 - probability, 5 * std::sqrt(probability * (1 - probability) / elements));
  }
}

TEST(Dropout, FollowsItsWrittenCounter) {
  const TokenBatch batch = random_batch({3, 4}, 10, 2);
  const Matrix<float> kept = mask(kPlace, 0.25, batch, 10);
  for (std::int64_t token = 0; token < 7; ++token) {
    const std::uint32_t row = token < 3 ? 0 : 1;
    const auto position = static_cast<std::uint32_t>(token - 3 * row);
    for (std::uint32_t feature = 0; feature < 10; ++feature) {
      const Words words =
          philox4x32({position, feature / 4 + 0x10000 * 3 + 0x10000000 * 5, 1000 + row, 7}, {0x9abcdef0, 0x12345678});
      EXPECT_EQ(kept(token, feature) != 0, words[feature % 4] >= 0x40000000U) << token << ", " << feature;
    }
  }
}

TEST(Dropout, EveryPartOfThePlaceChangesTheMask) {
  const TokenBatch batch = random_batch({50}, 10, 3);
  const Matrix<float> base = mask(kPlace, 0.5, batch, 64);
  std::vector<DropoutPlace> others(4, kPlace);
  others[0].seed += std::uint64_t{1} << 32;
  others[1].step += 1;
  others[2].layer += 1;
  others[3].projection += 1;
  for (const DropoutPlace& other : others) EXPECT_NE(base, mask(other, 0.5, batch, 64));
  TokenBatch other_row = batch;
  other_row.row_ids[0] += 1;
  EXPECT_NE(base, mask(kPlace, 0.5, other_row, 64));
  EXPECT_NE(base.row(0), base.row(1));
}

TEST(Dropout, IsTheSameWhateverTheBatchIsCutInto) {
  const TokenBatch whole = random_batch({20, 30}, 10, 4);
  TokenBatch second = random_batch({30}, 10, 5);
  second.row_ids[0] = whole.row_ids[1];
  const auto masks = with_thread_counts([&] { return mask(kPlace, 0.3, whole, 66); });
  expect_same_bits(masks[0], masks[1], "2 threads");
  expect_same_bits(masks[0], masks[2], "3 threads");
  const Matrix<float> part = masks[0].bottomRows(30);
  expect_same_bits(part, mask(kPlace, 0.3, second, 66), "a row in another batch");
}

TEST(Dropout, ProbabilityZeroChangesNothing) {
  const TokenBatch batch = random_batch({4}, 10, 6);
  const Matrix<float> x = random_matrix<float>(4, 9, 7);
  Matrix<float> y = x;
  dropout(kPlace, 0, batch, DType::bf16, y);
  expect_same_bits(x, y, "x");
}

TEST(Dropout, RefusesWhatHasNoMask) {
  const TokenBatch batch = random_batch({1}, 10, 8);
  for (const double probability : {-0.1, 1.0, 2.0, std::nan("")}) {
    expect_bad_input({"lora_dropout is", "probability"}, [&] { mask(kPlace, probability, batch, 4); });
  }
  expect_bad_input({"layer 4096"}, [&] { mask({.layer = 4096}, 0.1, batch, 4); });
  expect_bad_input({"projection 16"}, [&] { mask({.projection = 16}, 0.1, batch, 4); });
  expect_bad_input({"262145 input features"}, [&] { mask({}, 0.1, batch, (1 << 18) + 1); });
}

}  // namespace
}  // namespace qshard::reference
