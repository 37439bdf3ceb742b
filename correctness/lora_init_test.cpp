#include "core/model/lora_init.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

namespace qshard {
namespace {

constexpr const char* kName = "model.layers.0.mlp.up_proj.lora_A.weight";

struct Moments {
  double mean = 0;
  double variance = 0;
  double fourth = 0;  // of values divided by their deviation: 3 for a normal distribution, 1.8 for a uniform one
};

Moments moments(const std::vector<float>& values) {
  Moments of;
  const auto count = static_cast<double>(values.size());
  for (const float v : values) of.mean += v / count;
  for (const float v : values) of.variance += (v - of.mean) * (v - of.mean) / count;
  for (const float v : values) of.fourth += std::pow(v - of.mean, 4) / (of.variance * of.variance) / count;
  return of;
}

// The seed is fixed, so that nothing here happens by chance; the bounds are six deviations of each estimate.
TEST(LoraInit, HasPeftsDistributions) {
  const Shape shape{16, 4096};
  const double count = 16.0 * 4096;
  const Moments uniform = moments(lora_a_values(LoraStart::uniform, 42, kName, shape));
  EXPECT_NEAR(uniform.mean * 64, 0, 6 / std::sqrt(3 * count));
  EXPECT_NEAR(uniform.variance * 4096, 1.0 / 3, 6 * 0.298 / std::sqrt(count));
  EXPECT_NEAR(uniform.fourth, 1.8, 0.05);
  const auto values = lora_a_values(LoraStart::gaussian, 42, kName, shape);
  const Moments normal = moments(values);
  EXPECT_NEAR(normal.mean * 16, 0, 6 / std::sqrt(count));
  EXPECT_NEAR(normal.variance * 256, 1, 6 * std::sqrt(2 / count));
  EXPECT_NEAR(normal.fourth, 3, 6 * std::sqrt(24 / count));
  EXPECT_TRUE(std::ranges::all_of(values, [](float v) { return std::isfinite(v); }));
  double neighbours = 0;  // both values that one pair of words makes
  for (std::size_t i = 0; i + 1 < values.size(); i += 2) neighbours += 256.0 * values[i] * values[i + 1] * 2 / count;
  EXPECT_NEAR(neighbours, 0, 6 * std::sqrt(2 / count));
}

TEST(LoraInit, DependsOnSeedAndNameAndNotOnTheLength) {
  for (const LoraStart start : {LoraStart::uniform, LoraStart::gaussian}) {
    const auto values = lora_a_values(start, 42, kName, {3, 7});
    EXPECT_EQ(values, lora_a_values(start, 42, kName, {3, 7}));
    EXPECT_NE(values, lora_a_values(start, 43, kName, {3, 7}));
    EXPECT_NE(values, lora_a_values(start, 42, "another", {3, 7}));
    const auto longer = lora_a_values(start, 42, kName, {3, 7 * 5});
    const float ratio = start == LoraStart::uniform ? std::sqrt(5.0F) : 1.0F;
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(longer[i] * ratio, values[i], 1e-6) << i;
  }
}

}  // namespace
}  // namespace qshard
