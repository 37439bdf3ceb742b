#include "reference/double_quant.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "core/tensor/codebook.h"

namespace qshard::reference {
namespace {

// The nearest map entry found by looking at all of them: between two neighbours the even index keeps its side up to
// and including their midpoint (rounded to float), the odd one wins strictly beyond.
int oracle_code(float x, const std::array<float, 256>& map) {
  if (std::isnan(x) || x <= map[0]) return 0;
  if (x > map[255]) return 255;
  int above = 0;
  while (x > map[static_cast<std::size_t>(above)]) ++above;
  const int below = above - 1;
  const float midpoint = (map[static_cast<std::size_t>(below)] + map[static_cast<std::size_t>(above)]) * 0.5F;
  if (below % 2 == 0) return x > midpoint ? above : below;
  return x < midpoint ? below : above;
}

// Codes of values in [-1, 1] against a nested absmax of exactly 1.
std::vector<int> codes_of(const std::vector<float>& values, const std::array<float, 256>& map) {
  std::vector<float> absmax;
  for (const float value : values) {
    if (absmax.size() % 256 == 0) absmax.push_back(1.0F);
    absmax.push_back(value);
  }
  const NestedAbsmax nested = nest_absmax(absmax, map, 0.0F, Reciprocal::gpu);
  std::vector<int> codes;
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    if (i % 256 != 0) codes.push_back(nested.codes.at(i));
  }
  return codes;
}

TEST(DoubleQuant, AroundEveryEntryAndEveryMidpointLikeTheOracle) {
  const std::array<float, 256>& map = dynamic_map();
  std::vector<float> values;
  for (std::size_t i = 0; i + 1 < 256; ++i) {
    for (const float centre : {map[i], (map[i] + map[i + 1]) * 0.5F}) {
      for (const float x : {std::nextafter(centre, -2.0F), centre, std::nextafter(centre, 2.0F)}) values.push_back(x);
    }
  }
  std::mt19937_64 generator(5);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  for (int i = 0; i < 200'000; ++i) {
    values.push_back(std::ldexp(uniform(generator), -static_cast<int>(generator() % 24)));
  }
  const std::vector<int> codes = codes_of(values, map);
  for (std::size_t i = 0; i < values.size(); ++i) {
    // Subnormal neighbours of 0 count as 0.
    const float x = std::fabs(values[i]) < 0x1p-126F ? 0.0F : values[i];
    ASSERT_EQ(codes[i], oracle_code(x, map)) << values[i];
  }
}

TEST(DoubleQuant, TieStaysOnTheEvenIndex) {
  std::array<float, 256> map{};  // entries and midpoints are exact
  for (std::size_t i = 0; i < 256; ++i) map[i] = (static_cast<float>(i) - 127.0F) / 128.0F;
  const std::vector<int> codes = codes_of({0.5F / 128, 1.5F / 128, -0.5F / 128, -1.5F / 128}, map);
  EXPECT_EQ(codes, (std::vector<int>{128, 128, 126, 126}));
}

TEST(DoubleQuant, GivenOffsetIsTakenAndBlocksAre256) {
  std::vector<float> absmax(513, 2.0F);
  absmax[0] = 6.0F;
  absmax[300] = 0.5F;
  absmax[512] = 3.0F;
  const NestedAbsmax nested = nest_absmax(absmax, dynamic_map(), 1.0F, Reciprocal::gpu);
  EXPECT_EQ(nested.offset, 1.0F);
  EXPECT_EQ(nested.nested_absmax, (std::vector<float>{5.0F, 1.0F, 2.0F}));
  EXPECT_EQ(nested.codes[0], 255);
  EXPECT_EQ(nested.codes[512], 255);
}

TEST(DoubleQuant, ComputedOffsetIsTheRoundedMean) {
  std::mt19937_64 generator(6);
  std::uniform_real_distribution<float> uniform(0.0F, 0.1F);
  for (const std::size_t count : {1U, 2U, 255U, 256U, 257U, 100'000U}) {
    std::vector<float> absmax(count);
    for (float& value : absmax) value = uniform(generator);
    long double sum = 0.0L;
    for (const float value : absmax) sum += value;
    const auto mean = static_cast<float>(sum / static_cast<long double>(count));
    EXPECT_EQ(nest_absmax(absmax, dynamic_map(), std::nullopt, Reciprocal::gpu).offset, mean) << count;
  }
}

TEST(DoubleQuant, EqualScalesLeaveAZeroBlock) {
  const std::vector<float> absmax(300, 0.25F);
  const NestedAbsmax nested = nest_absmax(absmax, dynamic_map(), std::nullopt, Reciprocal::gpu);
  EXPECT_EQ(nested.offset, 0.25F);
  EXPECT_EQ(nested.nested_absmax, (std::vector<float>{0.0F, 0.0F}));
  EXPECT_TRUE(std::ranges::all_of(nested.codes, [](std::uint8_t code) { return code == 0; }));
}

TEST(DoubleQuant, InfiniteAndNanScales) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> absmax{infinity, 1.0F, 2.0F};
  const NestedAbsmax given = nest_absmax(absmax, dynamic_map(), 1.0F, Reciprocal::gpu);
  EXPECT_EQ(given.nested_absmax.at(0), infinity);
  EXPECT_EQ(given.codes, (std::vector<std::uint8_t>{0, 127, 127}));  // infinity * 0 is NaN; the others are 0
  // The mean is infinite: infinity - infinity is NaN, the others -infinity.
  const NestedAbsmax computed = nest_absmax(absmax, dynamic_map(), std::nullopt, Reciprocal::gpu);
  EXPECT_EQ(computed.nested_absmax.at(0), infinity);
  EXPECT_EQ(computed.codes, (std::vector<std::uint8_t>{0, 0, 0}));
}

// decode(code) = round(round(map[code] * nested_absmax) + offset). One rounding (a fused multiply-add) gives another
// last bit for some codes; the test is only worth something where it does.
TEST(DoubleQuant, DecodesWithTwoRoundings) {
  Weight4bitInfo info;
  info.shape = {256 * 64};
  info.nested = true;
  info.offset = 0.0519058332F;
  info.nested_map = dynamic_map();
  std::vector<std::uint8_t> codes(256);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i);
  const std::vector<float> nested_absmax{0.0123456789F};
  const std::vector<float> absmax = decode_absmax({&info, {}, {}, codes, nested_absmax});
  int fused_differs = 0;
  ASSERT_EQ(absmax.size(), 256U);
  for (std::size_t i = 0; i < 256; ++i) {
    const auto scaled = static_cast<float>(static_cast<double>(info.nested_map[i]) * nested_absmax[0]);
    ASSERT_EQ(absmax[i], static_cast<float>(static_cast<double>(scaled) + info.offset)) << i;
    fused_differs += absmax[i] != std::fma(info.nested_map[i], nested_absmax[0], info.offset) ? 1 : 0;
  }
  EXPECT_GT(fused_differs, 0);
}

TEST(DoubleQuant, RoundTripStaysWithinHalfAMapStep) {
  std::mt19937_64 generator(9);
  std::uniform_real_distribution<float> uniform(0.02F, 0.09F);
  std::vector<float> absmax(1000);
  for (float& value : absmax) value = uniform(generator);
  const NestedAbsmax nested = nest_absmax(absmax, dynamic_map(), std::nullopt, Reciprocal::gpu);
  Weight4bitInfo info;
  info.nested = true;
  info.offset = nested.offset;
  info.nested_map = dynamic_map();
  const std::vector<float> decoded = decode_absmax({&info, {}, {}, nested.codes, nested.nested_absmax});
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    // The widest step of the map is 9/640 of a block's largest deviation; half of it, and a little for roundings.
    const float bound = nested.nested_absmax[i / 256] * (0.9F / 128) * 1.01F;
    EXPECT_TRUE(std::fabs(decoded[i] - absmax[i]) <= bound) << i;
  }
}

}  // namespace
}  // namespace qshard::reference
