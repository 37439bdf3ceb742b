#include "core/tensor/codebook.h"

#include <algorithm>

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace qshard
