#include "reference/reciprocal.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace qshard::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float from_bits(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

std::uint32_t bits_of(float value) {
  return std::bit_cast<std::uint32_t>(value);
}

// Rounding the quotient in double first cannot change the float: double has more than twice its digits.
float rounded_reciprocal(float x) {
  return static_cast<float>(1.0 / static_cast<double>(x));
}

int ulps_off(std::uint32_t bits) {
  const float x = from_bits(bits);
  return static_cast<int>(bits_of(reciprocal(x, Reciprocal::gpu)) - bits_of(rounded_reciprocal(x)));
}

TEST(Reciprocal, DiffersFromTheRoundedOneAsCountedOnTheGpu) {
  int low = 0;
  int high = 0;
  int equal = 0;
  for (std::uint32_t mantissa = 0; mantissa < 1U << 23; ++mantissa) {
    const int difference = ulps_off(0x3F800000U | mantissa);
    low += difference == -1 ? 1 : 0;
    high += difference == 1 ? 1 : 0;
    equal += difference == 0 ? 1 : 0;
  }
  EXPECT_EQ(low, 374'723);
  EXPECT_EQ(high, 733'799);
  EXPECT_EQ(equal, 7'280'086);
}

TEST(Reciprocal, SixteenBitMantissasThatDiffer) {
  int bf16 = 0;
  for (std::uint32_t mantissa = 0; mantissa < 128; ++mantissa) {
    bf16 += ulps_off(0x3F800000U | mantissa << 16) != 0 ? 1 : 0;
  }
  int f16 = 0;
  for (std::uint32_t mantissa = 0; mantissa < 1024; ++mantissa) {
    f16 += ulps_off(0x3F800000U | mantissa << 13) != 0 ? 1 : 0;
  }
  EXPECT_EQ(bf16, 20);
  EXPECT_EQ(f16, 130);
}

TEST(Reciprocal, DifferenceDependsOnTheMantissaAlone) {
  std::mt19937 generator(1);
  for (int i = 0; i < 200; ++i) {
    const std::uint32_t mantissa = generator() & 0x7FFFFFU;
    const int expected = ulps_off(127U << 23 | mantissa);
    for (std::uint32_t exponent = 1; exponent <= 252; ++exponent) {
      ASSERT_EQ(ulps_off(exponent << 23 | mantissa), expected) << exponent << " " << mantissa;
      ASSERT_EQ(ulps_off(0x80000000U | exponent << 23 | mantissa), expected) << exponent << " " << mantissa;
    }
  }
}

TEST(Reciprocal, GpuFlushesSubnormalOperandsAndResults) {
  EXPECT_EQ(reciprocal(0.0F, Reciprocal::gpu), kInfinity);
  EXPECT_EQ(reciprocal(-0.0F, Reciprocal::gpu), -kInfinity);
  EXPECT_EQ(reciprocal(from_bits(0x00000001), Reciprocal::gpu), kInfinity);
  EXPECT_EQ(reciprocal(from_bits(0x007FFFFF), Reciprocal::gpu), kInfinity);
  EXPECT_EQ(reciprocal(0x1p-126F, Reciprocal::gpu), 0x1p126F);
  EXPECT_EQ(reciprocal(0x1p126F, Reciprocal::gpu), 0x1p-126F);
  EXPECT_EQ(bits_of(reciprocal(from_bits(bits_of(0x1p126F) + 1), Reciprocal::gpu)), 0U);
  EXPECT_EQ(bits_of(reciprocal(std::numeric_limits<float>::max(), Reciprocal::gpu)), 0U);
  EXPECT_EQ(bits_of(reciprocal(std::numeric_limits<float>::lowest(), Reciprocal::gpu)), 0x80000000U);
  EXPECT_EQ(bits_of(reciprocal(kInfinity, Reciprocal::gpu)), 0U);
  EXPECT_TRUE(std::isnan(reciprocal(std::numeric_limits<float>::quiet_NaN(), Reciprocal::gpu)));
}

TEST(Reciprocal, PowersOfTwoAreExact) {
  for (int exponent = -126; exponent <= 126; ++exponent) {
    EXPECT_EQ(reciprocal(std::ldexp(1.0F, exponent), Reciprocal::gpu), std::ldexp(1.0F, -exponent)) << exponent;
  }
}

TEST(Reciprocal, IeeeIsCorrectlyRounded) {
  std::mt19937 generator(2);
  for (int i = 0; i < 1'000'000; ++i) {
    const float x = from_bits(static_cast<std::uint32_t>(generator()));
    if (std::isnan(x)) continue;
    ASSERT_EQ(bits_of(reciprocal(x, Reciprocal::ieee)), bits_of(rounded_reciprocal(x))) << x;
  }
}

}  // namespace
}  // namespace qshard::reference
