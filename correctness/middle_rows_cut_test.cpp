#include "optimized/linear4bit/middle_rows/middle_rows_cut.h"

#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace qshard::test {
namespace {

using namespace optimized::middle_rows;

// Rows g and g + 8 of 16, which are one lane's, are an even feature and the one after it; together all, each once. A
// warp dequantizes 32 lines: they are 32 neighbouring features.
TEST(MiddleRowsCut, LanesHavePairsOfFeatures) {
  std::set<int> features;
  for (int line = 0; line < kTileFeatures; ++line) {
    features.insert(feature_of_line(line));
    EXPECT_EQ(feature_of_line(line) / 32, line / 32) << line;
    if (line % 16 >= 8) continue;
    EXPECT_EQ(feature_of_line(line) % 2, 0) << line;
    EXPECT_EQ(feature_of_line(line + 8), feature_of_line(line) + 1) << line;
  }
  EXPECT_EQ(features.size(), static_cast<std::size_t>(kTileFeatures));
  EXPECT_EQ(*features.begin(), 0);
  EXPECT_EQ(*features.rbegin(), kTileFeatures - 1);
}

// The tiles hold all rows, and none of them is empty.
TEST(MiddleRowsCut, ColumnsForEveryNumberOfRows) {
  for (std::int64_t rows = 1; rows <= 5000; ++rows) {
    const ColumnCut cut(rows);
    const int tile = cut.columns * kCluster;
    EXPECT_GE(static_cast<std::int64_t>(tile) * cut.tiles, rows) << rows;
    EXPECT_LT(static_cast<std::int64_t>(tile) * (cut.tiles - 1), rows) << rows;
    EXPECT_LE(cut.columns, kMostColumns) << rows;
  }
  EXPECT_EQ(ColumnCut(257).columns, 144);
  EXPECT_EQ(ColumnCut(384).columns, 192);
  EXPECT_EQ(ColumnCut(512).tiles, 1);
  EXPECT_EQ(ColumnCut(513).tiles, 2);
  EXPECT_EQ(ColumnCut(777).columns, 200);
  EXPECT_EQ(ColumnCut(1024).tiles, 2);
}

// Over all clusters each tile has each of its steps once, and a tile that is dealt out whole is one cluster's. Clusters
// have equally many steps, but for one, or for one tile where none is cut.
TEST(MiddleRowsCut, EveryStepOfEveryTileOnce) {
  for (const int tiles : {1, 2, 5, 57, 58, 65, 66, 67, 80, 128, 132, 133, 216, 432, 1000}) {
    for (const int steps : {1, 2, 3, 17, 80}) {
      for (const bool input_stays : {false, true}) {
        const TileOrder order(tiles, steps, 66, 16, input_stays);
        ASSERT_LE(order.clusters, 66);
        std::vector<int> times(static_cast<std::size_t>(tiles) * steps);
        int least = tiles * steps;
        int most = 0;
        for (int cluster = 0; cluster < order.clusters; ++cluster) {
          const int all = order.steps_of(cluster, tiles);
          least = std::min(least, all);
          most = std::max(most, all);
          for (int number = 0; number < all; ++number) {
            const Segment segment = order.segment(cluster, number);
            ASSERT_LE(segment.begin, number);
            ASSERT_LT(number, segment.end);
            ASSERT_LE(segment.end, all);
            const int step = number - segment.begin + segment.first_step;
            ASSERT_LT(step, steps);
            if (segment.tile < order.whole) {
              ASSERT_EQ(segment.end - segment.begin, steps);
            }
            ++times[static_cast<std::size_t>(segment.tile) * steps + step];
          }
        }
        for (const int each : times) ASSERT_EQ(each, 1) << tiles << ' ' << steps;
        EXPECT_LE(most - least, order.whole == 0 ? 1 : order.whole == tiles ? steps : steps + 1);
      }
    }
  }
  EXPECT_EQ(TileOrder(216, 80, 66, 16, true).whole, 0);
  EXPECT_EQ(TileOrder(216, 80, 66, 16, false).whole, 198);
  EXPECT_EQ(TileOrder(128, 80, 66, 16, true).whole, 128) << "nearly two waves";
}

}  // namespace
}  // namespace qshard::test
