#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/cluster/tile_sharers.h"
#include "optimized/linear4bit/middle_rows/middle_rows_cut.h"
#include "optimized/linear4bit/wide/wide_cut.h"

namespace qshard::test {
namespace {

using namespace optimized::cluster;

// Rows g and g + 8 of 16, which are one lane's, are an even feature and the one after it; together all, each once. A
// warp dequantizes 32 lines: they are 32 neighbouring features.
TEST(ClusterCut, LanesHavePairsOfFeatures) {
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

// Sharers hold all steps of the tile. Owners have nothing to do after it, so that they may wait; and a count that
// belongs to the second sharer is of no other tile.
void expect_sharers(int tiles, int steps, int workers) {
  const optimized::WorkSplit split(tiles, steps, workers);
  std::set<int> seconds;
  for (int tile = 0; tile < tiles; ++tile) {
    const TileSharers sharers(split, tile);
    const int end = (tile + 1) * steps;
    ASSERT_LE(split.begin(sharers.first), end - steps);
    ASSERT_GT(split.begin(sharers.first + 1), end - steps);
    ASSERT_LT(split.begin(sharers.first + sharers.count - 1), end);
    ASSERT_GE(split.begin(sharers.first + sharers.count), end);
    ASSERT_GE(sharers.owners, 1);
    if (sharers.count == 1) continue;
    EXPECT_TRUE(seconds.insert(sharers.second()).second);
    EXPECT_LT(sharers.second(), split.workers);
    EXPECT_LE(split.begin(sharers.first + sharers.owners), end);
    const bool all_that_end = sharers.owners == sharers.count || split.begin(sharers.first + sharers.owners + 1) > end;
    EXPECT_TRUE(all_that_end || sharers.owners == TileSharers::kMostOwners);
  }
}

TEST(ClusterCut, OwnersEndWithTheirTile) {
  for (const int steps : {1, 7, 64, 448}) {
    for (int tiles = 1; tiles <= 300; ++tiles) {
      for (const int workers : {1, 2, 65, 66}) {
        SCOPED_TRACE(testing::Message() << tiles << " tiles of " << steps << " steps for " << workers);
        expect_sharers(tiles, steps, workers);
      }
    }
  }
  const TileSharers many(optimized::WorkSplit(1, 640, 66), 0);
  EXPECT_EQ(many.count, 66);
  EXPECT_EQ(many.owners, TileSharers::kMostOwners);
  const TileSharers two(optimized::WorkSplit(3, 10, 2), 1);
  EXPECT_EQ(two.first, 0);
  EXPECT_EQ(two.count, 2);
  EXPECT_EQ(two.owners, 1) << "the second one goes on with the last tile";
}

// The tiles hold all rows, and none of them is empty.
void expect_all_rows(const TileShape& shape) {
  for (std::int64_t rows = 1; rows <= 5000; ++rows) {
    const ColumnCut cut(rows, shape);
    const std::int64_t tile = std::int64_t{cut.columns} * shape.column_sharers;
    EXPECT_GE(tile * cut.tiles, rows) << rows;
    EXPECT_LT(tile * (cut.tiles - 1), rows) << rows;
    EXPECT_LE(cut.columns, shape.column_counts.back()) << rows;
  }
}

TEST(ClusterCut, ColumnsForEveryNumberOfRows) {
  expect_all_rows(optimized::wide::kTileShape);
  expect_all_rows(optimized::middle_rows::kTileShape);
}

TEST(ClusterCut, WideTilesHaveAsManyColumnsAsThereAreRows) {
  const TileShape& shape = optimized::wide::kTileShape;
  EXPECT_EQ(ColumnCut(65, shape).columns, 96);
  EXPECT_EQ(ColumnCut(128, shape).columns, 128);
  EXPECT_EQ(ColumnCut(256, shape).tiles, 1);
  EXPECT_EQ(ColumnCut(257, shape).columns, 272);
  EXPECT_EQ(ColumnCut(288, shape).tiles, 1);
  EXPECT_EQ(ColumnCut(289, shape).columns, 160);
  EXPECT_EQ(ColumnCut(777, shape).tiles, 3);
}

TEST(ClusterCut, MiddleRowsShareColumns) {
  const TileShape& shape = optimized::middle_rows::kTileShape;
  EXPECT_EQ(ColumnCut(257, shape).columns, 144);
  EXPECT_EQ(ColumnCut(384, shape).columns, 192);
  EXPECT_EQ(ColumnCut(512, shape).tiles, 1);
  EXPECT_EQ(ColumnCut(513, shape).tiles, 2);
  EXPECT_EQ(ColumnCut(777, shape).columns, 200);
  EXPECT_EQ(ColumnCut(1024, shape).tiles, 2);
  EXPECT_EQ(ColumnCut(2241, shape).columns, 192) << "six tiles of 192 cost less than five of 256";
  EXPECT_EQ(ColumnCut(2241, shape).tiles, 6);
}

// Each line is one thread's. Eight neighbouring threads read 16 bytes of codes, and write 16 of lines, at once: no two
// in the same banks. Lines have 128 bytes; rows of codes 64, whose units of 16 are swizzled by the row.
TEST(WideCut, ThreadsOfAPhaseAreInDifferentBanks) {
  for (const bool forward : {false, true}) {
    std::set<int> lines;
    for (int thread = 0; thread < kTileFeatures; thread += 8) {
      std::set<int> banks_of_lines;
      std::set<int> banks_of_codes;
      for (int i = 0; i < 8; ++i) {
        const int line = optimized::wide::line_of_thread(forward, thread + i);
        lines.insert(line);
        banks_of_lines.insert(line % 8);
        const int row = forward ? feature_of_line(line) : line % kChunk;
        const int unit = (forward ? 0 : line / kChunk * 2) ^ row / 2 % 4;
        banks_of_codes.insert(row % 2 * 4 + unit);
      }
      EXPECT_EQ(banks_of_lines.size(), 8U) << thread;
      EXPECT_EQ(banks_of_codes.size(), 8U) << thread;
    }
    EXPECT_EQ(lines.size(), static_cast<std::size_t>(kTileFeatures));
  }
}

// The same of middle_rows' lanes, whose rows of codes have 32 bytes in two units, which lie the other way round in four
// rows of eight.
TEST(MiddleRowsCut, LanesOfAPhaseAreInDifferentBanks) {
  for (int lane = 0; lane < 32; lane += 8) {
    std::set<int> banks_of_lines;
    std::set<int> banks_of_codes;
    for (int i = 0; i < 8; ++i) {
      const int line = forward_line(lane + i);
      const int row = feature_of_line(line);
      banks_of_lines.insert(line % 8);
      banks_of_codes.insert(row % 4 * 2 + row / 4 % 2);
    }
    EXPECT_EQ(banks_of_lines.size(), 8U) << lane;
    EXPECT_EQ(banks_of_codes.size(), 8U) << lane;
  }
}

// Over all clusters each tile has each of its steps once, and a tile that is dealt out whole is one cluster's. Clusters
// have equally many steps, but for one, or for one tile where none is cut.
TEST(ClusterCut, EveryStepOfEveryTileOnce) {
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
