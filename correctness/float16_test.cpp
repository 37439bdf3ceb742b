#include "core/tensor/float16.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace qshard {
namespace {

float from_bits(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

// What a 16-bit pattern means, from the definition of the format.
double meaning(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
  const std::uint32_t mantissa = bits & ((1U << mantissa_bits) - 1);
  const std::uint32_t exponent = bits >> mantissa_bits & ((1U << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double magnitude = 0.0;
  if (exponent == (1U << exponent_bits) - 1) {
    magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else {
    magnitude = std::ldexp(mantissa + (1U << mantissa_bits), static_cast<int>(exponent) - bias - mantissa_bits);
  }
  return bits >> 15 != 0 ? -magnitude : magnitude;
}

template <typename T>
struct Format;
template <>
struct Format<float16> {
  static constexpr int exponent_bits = 5;
  static constexpr int mantissa_bits = 10;
  static constexpr std::uint32_t infinity = 0x7C00;
};
template <>
struct Format<bfloat16> {
  static constexpr int exponent_bits = 8;
  static constexpr int mantissa_bits = 7;
  static constexpr std::uint32_t infinity = 0x7F80;
};

template <typename T>
double meaning(std::uint32_t bits) {
  return meaning(bits, Format<T>::exponent_bits, Format<T>::mantissa_bits);
}

template <typename T>
class SixteenBits : public testing::Test {};
using Formats = testing::Types<float16, bfloat16>;
TYPED_TEST_SUITE(SixteenBits, Formats);

TYPED_TEST(SixteenBits, EveryPatternMeansWhatTheFormatSaysAndSurvives) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = to_float(TypeParam{static_cast<std::uint16_t>(bits)});
    const double expected = meaning<TypeParam>(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_EQ(from_float<TypeParam>(value).bits, 0x7FFF) << bits;
      continue;
    }
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(std::signbit(value), bits >> 15 != 0) << bits;
    ASSERT_EQ(from_float<TypeParam>(value).bits, bits) << bits;
  }
}

// Rounding is monotonic, so that it is right everywhere if it is right at the midpoints of all neighbours and at the
// floats on either side of them.
TYPED_TEST(SixteenBits, RoundsToNearestTiesToEvenBetweenAllNeighbours) {
  const std::uint32_t infinity = Format<TypeParam>::infinity;
  for (std::uint32_t low = 0; low < infinity; ++low) {
    // Beyond the largest value the next step of the same size would come, if the exponent went on.
    const double step = low + 1 < infinity ? meaning<TypeParam>(low + 1) - meaning<TypeParam>(low)
                                           : meaning<TypeParam>(low) - meaning<TypeParam>(low - 1);
    const auto midpoint = static_cast<float>(meaning<TypeParam>(low) + step / 2);
    const std::uint32_t even = low % 2 == 0 ? low : low + 1;
    ASSERT_EQ(from_float<TypeParam>(midpoint).bits, even) << low;
    ASSERT_EQ(from_float<TypeParam>(-midpoint).bits, even | 0x8000U) << low;
    const float below = std::nextafter(midpoint, 0.0F);
    const float above = std::nextafter(midpoint, std::numeric_limits<float>::infinity());
    ASSERT_EQ(from_float<TypeParam>(below).bits, low) << low;
    ASSERT_EQ(from_float<TypeParam>(above).bits, low + 1) << low;
  }
}

TYPED_TEST(SixteenBits, RoundingIsMonotonic) {
  std::uint16_t last = 0;
  for (std::uint32_t bits = 0; bits <= 0x7F800000U; bits += 127) {
    const std::uint16_t rounded = from_float<TypeParam>(from_bits(bits)).bits;
    ASSERT_GE(rounded, last) << bits;
    ASSERT_EQ(from_float<TypeParam>(from_bits(bits | 0x80000000U)).bits, rounded | 0x8000U) << bits;
    last = rounded;
  }
}

TYPED_TEST(SixteenBits, EveryNanIsOneNan) {
  for (const std::uint32_t sign : {0U, 0x80000000U}) {
    for (std::uint32_t payload = 1; payload < 1U << 23; payload += 101) {
      ASSERT_EQ(from_float<TypeParam>(from_bits(sign | 0x7F800000U | payload)).bits, 0x7FFF) << payload;
    }
  }
}

TEST(Float16, OverflowsPastHalfAStepBeyondTheLargest) {
  EXPECT_EQ(from_float<float16>(65504.0F).bits, 0x7BFF);
  EXPECT_EQ(from_float<float16>(65519.996F).bits, 0x7BFF);
  EXPECT_EQ(from_float<float16>(65520.0F).bits, 0x7C00);
  EXPECT_EQ(from_float<float16>(-3e38F).bits, 0xFC00);
}

TEST(Bfloat16, OverflowsToInfinityAndKeepsSubnormals) {
  EXPECT_EQ(from_float<bfloat16>(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_EQ(from_float<bfloat16>(from_bits(0x7F7F7FFF)).bits, 0x7F7F);
  EXPECT_EQ(from_float<bfloat16>(from_bits(0x00010000)).bits, 0x0001);
}

}  // namespace
}  // namespace qshard
