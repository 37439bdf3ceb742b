#include "core/training/sampling.h"

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "correctness/expect_error.h"

namespace qshard {
namespace {

constexpr std::array<float, 5> kLogits{0.5F, 2.0F, -1.0F, 2.0F, 1.0F};

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(Sampler({}).next(kLogits), 1);
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  Sampler a({.temperature = 1.0, .seed = 9});
  Sampler b({.temperature = 1.0, .seed = 9});
  Sampler c({.temperature = 1.0, .seed = 10});
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
  Sampler sampler({.temperature = kTemperature, .top_k = 3, .seed = 4});
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
  Sampler sampler({.temperature = 5.0, .top_k = 1, .seed = 3});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(sampler.next(kLogits), 1);
}

/// Probabilities of top-p by a plain calculation: token i stays if those more likely than it, and equal ones before it,
/// have less than top_p together.
std::vector<double> nucleus(std::span<const float> logits, double temperature, double top_p) {
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(logit / temperature));
  double total = 0;
  for (const double value : p) total += value;
  std::vector<double> kept(p.size(), 0.0);
  double kept_total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    double before = 0;
    for (std::size_t j = 0; j < p.size(); ++j) before += p[j] > p[i] || (p[j] == p[i] && j < i) ? p[j] / total : 0.0;
    if (before < top_p) kept_total += kept[i] = p[i];
  }
  for (double& value : kept) value /= kept_total;
  return kept;
}

TEST(Sampler, DrawsFromTheFewestTokensOfTopP) {
  constexpr int kDraws = 20000;
  std::mt19937 random(8);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  for (const double top_p : {1e-9, 0.3, 0.6, 0.95, 1.0}) {
    std::array<float, 12> logits{};
    for (float& logit : logits) logit = normal(random);
    logits[7] = logits[2];
    const std::vector<double> wanted = nucleus(logits, 1.5, top_p);
    Sampler sampler({.temperature = 1.5, .top_p = top_p, .seed = 6});
    std::array<int, 12> counts{};
    for (int i = 0; i < kDraws; ++i) ++counts[static_cast<std::size_t>(sampler.next(logits))];
    for (std::size_t token = 0; token < logits.size(); ++token) {
      const double p = wanted[token];
      // Six standard deviations, and 0 where the token is cut off. The seed is fixed, so the outcome is.
      EXPECT_NEAR(counts[token], kDraws * p, 6 * std::sqrt(kDraws * p * (1 - p))) << top_p << " " << token;
    }
  }
}

TEST(Sampler, TopPIsOfWhatTopKLeaves) {
  // Of the two that top_k leaves each has half, and half is enough for one.
  Sampler sampler({.temperature = 1.0, .top_k = 2, .top_p = 0.5, .seed = 3});
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sampler.next(kLogits), 1);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  const std::array<float, 2> logits{0.0F, std::numeric_limits<float>::quiet_NaN()};
  expect_error(ExitCode::check_failed, {"not finite"}, [&] { Sampler({}).next(logits); });
}

}  // namespace
}  // namespace qshard
