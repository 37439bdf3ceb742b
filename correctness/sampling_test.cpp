#include "core/training/sampling.h"

#include <array>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "correctness/expect_error.h"

namespace qshard {
namespace {

constexpr std::array<float, 5> kLogits{0.5F, 2.0F, -1.0F, 2.0F, 1.0F};

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(Sampler({}).next(kLogits), 1);
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  Sampler a({1.0, 0, 9});
  Sampler b({1.0, 0, 9});
  Sampler c({1.0, 0, 10});
  int differences = 0;
  for (int i = 0; i < 100; ++i) {
    const std::int32_t token = a.next(kLogits);
    EXPECT_EQ(token, b.next(kLogits));
    differences += token == c.next(kLogits) ? 0 : 1;
  }
  EXPECT_GT(differences, 0);
}

TEST(Sampler, DrawsFromTheSoftmaxOfTheTopK) {
  constexpr int kDraws = 100000;
  constexpr double kTemperature = 2.0;
  Sampler sampler({kTemperature, 3, 4});
  std::array<int, 5> counts{};
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<std::size_t>(sampler.next(kLogits))];
  EXPECT_EQ(counts[0], 0);
  EXPECT_EQ(counts[2], 0);
  const double total = 2 * std::exp(2.0 / kTemperature) + std::exp(1.0 / kTemperature);
  for (const std::size_t token : {1U, 3U, 4U}) {
    const double p = std::exp(kLogits[token] / kTemperature) / total;
    // Five standard deviations of a binomial count: fails by chance once in two million runs.
    EXPECT_NEAR(counts[token], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << token;
  }
}

TEST(Sampler, ATopKOfOneIsGreedy) {
  Sampler sampler({5.0, 1, 3});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(sampler.next(kLogits), 1);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  const std::array<float, 2> logits{0.0F, std::numeric_limits<float>::quiet_NaN()};
  expect_error(ExitCode::check_failed, {"not finite"}, [&] { Sampler({}).next(logits); });
}

}  // namespace
}  // namespace qshard
