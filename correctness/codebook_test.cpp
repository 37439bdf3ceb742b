#include "core/tensor/codebook.h"

#include <algorithm>
#include <bit>
#include <span>

#include <gtest/gtest.h>

#include "core/base/fnv_hash.h"

namespace qshard {
namespace {

TEST(Codebook, ValuesRunFromMinusOneToOne) {
  EXPECT_EQ(kNf4Values.front(), -1.0F);
  EXPECT_EQ(kNf4Values.back(), 1.0F);
  EXPECT_TRUE(std::is_sorted(kNf4Values.begin(), kNf4Values.end()));
}

TEST(Codebook, Fp4NegativesMirrorThePositives) {
  for (std::size_t code = 0; code < 8; ++code) EXPECT_EQ(kFp4Values[code + 8], -kFp4Values[code]) << code;
}

TEST(Codebook, ThresholdsLieBetweenNeighbours) {
  for (std::size_t i = 0; i < kNf4Thresholds.size(); ++i) {
    EXPECT_GT(kNf4Thresholds[i], kNf4Values[i]);
    EXPECT_LT(kNf4Thresholds[i], kNf4Values[i + 1]);
  }
  for (std::size_t i = 0; i < kFp4Thresholds.size(); ++i) {
    EXPECT_GT(kFp4Thresholds[i], kFp4Values[kFp4Order[i]]);
    EXPECT_LT(kFp4Thresholds[i], kFp4Values[kFp4Order[i + 1]]);
  }
}

TEST(Codebook, DynamicMapIsSortedWithZeroAt127) {
  const auto& map = dynamic_map();
  EXPECT_TRUE(std::is_sorted(map.begin(), map.end()));
  EXPECT_EQ(map[127], 0.0F);
  EXPECT_EQ(map[255], 1.0F);
  EXPECT_EQ(map[0], -map[254]);
}

// Numbers of bitsandbytes 0.50.2's create_dynamic_map(signed=False): all of them by FNV-1a, some by their bits.
TEST(Codebook, UnsignedDynamicMapEqualsBitsandbytes) {
  const auto& map = unsigned_dynamic_map();
  EXPECT_TRUE(std::is_sorted(map.begin(), map.end()));
  EXPECT_EQ(map[0], 0.0F);
  EXPECT_EQ(map[255], 1.0F);
  EXPECT_EQ(fnv_hash(std::as_bytes(std::span(map))), 0x43811B16730A873EU);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(map[1]), 0x34AE7BAAU);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(map[100]), 0x3D807AE2U);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(map[254]), 0x3F7F199AU);
}

}  // namespace
}  // namespace qshard
