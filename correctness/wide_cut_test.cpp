#include "optimized/linear4bit/wide/wide_cut.h"

#include <set>

#include <gtest/gtest.h>

namespace qshard::test {
namespace {

using namespace optimized::wide;

// Each lane has a feature and the other one of its pair: together all, each once.
TEST(WideCut, LanesHaveEveryFeatureOnce) {
  std::set<int> forward;
  std::set<int> gradient;
  for (int group = 0; group < 8; ++group) {
    for (const int feature : {forward_feature(group), forward_feature(group) ^ 1}) {
      EXPECT_TRUE(feature >= 0 && feature < 16);
      forward.insert(feature);
    }
    for (const int warp : {0, 1}) {
      for (const int feature : {gradient_feature(warp, group), gradient_feature(warp, group) ^ 1}) {
        EXPECT_TRUE(feature >= 0 && feature < 32);
        gradient.insert(feature);
      }
    }
  }
  EXPECT_EQ(forward.size(), 16U);
  EXPECT_EQ(gradient.size(), 32U);
}

// Quarters of a warp load 16 bytes a lane at a time, two rows of 64 bytes: they must lie in different banks.
TEST(WideCut, ForwardLoadsOfTwoGroupsAreInDifferentBanks) {
  for (int group = 0; group < 8; group += 2) {
    EXPECT_NE(forward_feature(group) % 2, forward_feature(group + 1) % 2) << group;
  }
}

// The tiles hold all rows, and none of them is empty.
TEST(WideCut, ColumnsForEveryNumberOfRows) {
  for (std::int64_t rows = 1; rows <= 3000; ++rows) {
    const ColumnCut cut(rows);
    EXPECT_GE(static_cast<std::int64_t>(cut.columns) * cut.tiles, rows) << rows;
    EXPECT_LT(static_cast<std::int64_t>(cut.columns) * (cut.tiles - 1), rows) << rows;
    EXPECT_EQ(cut.columns % 32, 0) << rows;
    EXPECT_LE(cut.columns, kMostColumns) << rows;
  }
  EXPECT_EQ(ColumnCut(65).columns, 96);
  EXPECT_EQ(ColumnCut(128).columns, 128);
  EXPECT_EQ(ColumnCut(256).tiles, 1);
  EXPECT_EQ(ColumnCut(257).columns, 160);
  EXPECT_EQ(ColumnCut(777).tiles, 5);
  EXPECT_EQ(ColumnCut(777).columns, 160);
}

}  // namespace
}  // namespace qshard::test
