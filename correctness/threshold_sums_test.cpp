#include "optimized/threshold_sums.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include <gtest/gtest.h>

#include "correctness/threshold_testing.h"
#include "reference/flush_to_zero.h"
#include "reference/reciprocal.h"

namespace qshard::test {
namespace {

using optimized::ThresholdSums;
using reference::flush_to_zero;
using reference::multiply_flushed;

constexpr int kMantissas = 128;

float bfloat16(int exponent, int mantissa) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent * kMantissas + mantissa) << 16);
}

std::uint32_t found(float x, float reciprocal) {
  static constexpr ThresholdSums kSums = ThresholdSums::make();
  const float multiplier = multiply_flushed(reciprocal, ThresholdSums::kScale);
  const float element = flush_to_zero(x);
  const std::uint32_t cell = as_on_gpu(ThresholdSums::cell_bits(element, multiplier)) % ThresholdSums::kCells;
  return (as_on_gpu(ThresholdSums::position_bits(element, multiplier)) + kSums.addend[cell]) >> 28;
}

int wrong_codes(float absmax, float reciprocal, int exponent) {
  int wrong = 0;
  for (int mantissa = 0; mantissa < kMantissas; ++mantissa) {
    const float x = bfloat16(exponent, mantissa);
    if (x > absmax) break;
    for (const float element : {x, -x}) {
      const float scaled = multiply_flushed(element, reciprocal);
      const auto code = std::ranges::count_if(kNf4Thresholds, [&](float t) { return scaled > t; });
      if (found(element, reciprocal) != code) ++wrong;
    }
  }
  return wrong;
}

// Every absmax with these exponents (0: subnormal; 255: infinite or NaN) and every element up to it, but for those so
// small that they lie next to 0. A GPU's reciprocal is at most an ulp off.
TEST(ThresholdSums, EveryPairOfBfloat16) {
  for (const int exponent : {0, 1, 2, 126, 127, 128, 251, 252, 253, 254, 255}) {
    for (int mantissa = 0; mantissa < kMantissas; ++mantissa) {
      const float absmax = bfloat16(exponent, mantissa);
      const float reciprocal = reference::reciprocal(absmax, reference::Reciprocal::gpu);
      for (const int ulps : {-1, 0, 1}) {
        if (ulps != 0 && !std::isnormal(reciprocal)) continue;
        const auto off = std::bit_cast<float>(std::bit_cast<std::int32_t>(reciprocal) + ulps);
        for (int lower = std::max(0, exponent - 12); lower <= exponent; ++lower) {
          ASSERT_EQ(wrong_codes(absmax, flush_to_zero(off), lower), 0) << absmax << " " << ulps;
        }
        ASSERT_EQ(wrong_codes(absmax, flush_to_zero(off), 0), 0) << absmax;
      }
    }
  }
}

// A block of NaN alone has -FLT_MAX for its absmax; among numbers NaN does not count for it.
TEST(ThresholdSums, NanHasCodeZero) {
  for (const float reciprocal : {-0.0F, 0.0F, 1.0F, 0x1p126F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(found(std::numeric_limits<float>::quiet_NaN(), reciprocal), 0U);
  }
}

}  // namespace
}  // namespace qshard::test
