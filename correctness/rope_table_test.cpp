#include "core/model/rope_table.h"

#include <cmath>
#include <utility>

#include <gtest/gtest.h>

namespace qshard {
namespace {

ModelConfig with_rope(const RopeConfig& rope) {
  ModelConfig config;
  config.head_dim = 128;
  config.rope = rope;
  return config;
}

using Values = std::vector<std::pair<std::size_t, double>>;  // plane, frequency

// The frequency in float: a power, a quotient and, with a ramp, three more roundings of 2^-24.
void expect_frequencies(const std::vector<float>& got, const Values& expected) {
  ASSERT_EQ(got.size(), 64U);
  for (const auto& [plane, frequency] : expected) {
    EXPECT_TRUE(std::abs(got[plane] - frequency) <= 1e-6 * frequency)
        << plane << ": " << got[plane] << " against " << frequency;
  }
}

// theta^(-i / 64) in double.
TEST(RopeTable, StandardAndLinear) {
  const Values standard{{0, 1.0}, {1, 0.8659643233600653}, {32, 0.01}, {63, 0.00011547819846894582}};
  expect_frequencies(rope_frequencies(with_rope({.theta = 10000}), 1), standard);
  Values quarter = standard;
  for (auto& [plane, frequency] : quarter) frequency /= 4;
  expect_frequencies(rope_frequencies(with_rope({.type = RopeType::linear, .theta = 10000, .factor = 4}), 1), quarter);
}

// Llama 3.1: theta 500000, factor 8, low 1, high 4, 8192 positions. Wavelengths by hand: plane 0: 6.28 and 27: 1594,
// below 8192 / 4, unchanged; 40: 22911 and 63: 2559195, above 8192, divided by 8; 32: 4442.88 with s =
// (8192 / 4442.88 - 1) / 3 = 0.28128, and 33: 5453.95, in between.
TEST(RopeTable, Llama3) {
  const RopeConfig rope{.type = RopeType::llama3,
                        .theta = 500000,
                        .factor = 8,
                        .original_max_position_embeddings = 8192,
                        .low_freq_factor = 1,
                        .high_freq_factor = 4};
  expect_frequencies(rope_frequencies(with_rope(rope), 1), {{0, 1.0},
                                                            {27, 0.003942276030116656},
                                                            {32, 0.0005248461609929547},
                                                            {33, 0.00031269375038406517},
                                                            {40, 3.428102195952591e-05},
                                                            {63, 3.068925988914511e-07}});
}

// Factor 4 over 2048 positions. By hand for 3000: theta = 10000 (4 * 3000 / 2048 - 3)^(128 / 126) = 29074.58.
TEST(RopeTable, DynamicStretchesWithTheLongestRow) {
  const ModelConfig config =
      with_rope({.type = RopeType::dynamic, .theta = 10000, .factor = 4, .original_max_position_embeddings = 2048});
  for (const std::int64_t length : {1, 100, 2048}) {
    expect_frequencies(rope_frequencies(config, length), {{1, 0.8659643233600653}, {63, 0.00011547819846894582}});
  }
  expect_frequencies(rope_frequencies(config, 3000),
                     {{0, 1.0}, {1, 0.8516430396337707}, {32, 0.0058646654496999975}, {63, 4.038581804378433e-05}});
  expect_frequencies(rope_frequencies(config, 8192),
                     {{1, 0.8314159646852709}, {32, 0.002717612325612543}, {63, 8.882938343765066e-06}});
  EXPECT_EQ(make_rope_angles(config, 3000).cos[64 + 1], std::cos(rope_frequencies(config, 3000)[1]));
}

// Qwen2.5: theta 1e6, factor 4 over 32768 positions. Planes that turn 32 times and once, by hand: 23.596 and 39.651;
// rounded outwards 23 and 40. In between the ramp: plane 32 is (32 - 23) / 17 of the way to a quarter.
TEST(RopeTable, YarnTurnsFastPlanesAsBeforeAndSlowOnesByTheFactor) {
  RopeConfig rope{.type = RopeType::yarn, .theta = 1e6, .factor = 4, .original_max_position_embeddings = 32768};
  expect_frequencies(rope_frequencies(with_rope(rope), 1), {{0, 1.0},
                                                            {23, 0.006978305848598663},
                                                            {24, 0.005375321490790102},
                                                            {32, 0.0006029411764705882},
                                                            {39, 6.490394320837029e-05},
                                                            {40, 4.445698525097307e-05},
                                                            {63, 3.102344401879299e-07}});
  rope.truncate = false;
  expect_frequencies(rope_frequencies(with_rope(rope), 1), {{23, 0.006978305848598663},
                                                            {24, 0.0055172704751341225},
                                                            {32, 0.0006074079378798391},
                                                            {39, 6.187806812450695e-05},
                                                            {40, 4.445698525097307e-05}});
}

// Over 6 positions no plane turns once: both bounds are plane 0, and all planes after it are slow ones.
TEST(RopeTable, YarnWithBothBoundsOnOnePlane) {
  const RopeConfig rope{.type = RopeType::yarn, .theta = 1e6, .factor = 4, .original_max_position_embeddings = 6};
  const std::vector<float> got = rope_frequencies(with_rope(rope), 1);
  const std::vector<float> standard = rope_frequencies(with_rope({.theta = 1e6}), 1);
  EXPECT_EQ(got[0], standard[0]);
  for (std::size_t plane = 1; plane < got.size(); ++plane) EXPECT_EQ(got[plane], standard[plane] / 4);
}

TEST(RopeTable, AnglesAreCosAndSinTimesTheAttentionFactor) {
  const ModelConfig config = with_rope({.theta = 10000, .attention_factor = 1.25});
  const std::vector<float> frequencies = rope_frequencies(config, 3);
  const RopeAngles angles = make_rope_angles(config, 3);
  ASSERT_EQ(angles.cos.size(), 3U * 64);
  ASSERT_EQ(angles.sin.size(), 3U * 64);
  for (std::size_t position = 0; position < 3; ++position) {
    for (std::size_t plane = 0; plane < 64; ++plane) {
      const float angle = static_cast<float>(position) * frequencies[plane];
      EXPECT_EQ(angles.cos[position * 64 + plane], std::cos(angle) * 1.25F);
      EXPECT_EQ(angles.sin[position * 64 + plane], std::sin(angle) * 1.25F);
    }
  }
}

}  // namespace
}  // namespace qshard
