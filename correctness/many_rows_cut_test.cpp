#include "optimized/linear4bit/many_rows/many_rows_cut.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace qshard::test {
namespace {

namespace many_rows = optimized::many_rows;

/// What the cut reads of the kernel's arguments. Some of the clusters that the work is dealt out for may be missing.
struct Task {
  int steps;
  int row_tiles;
  int column_tiles;
  int cluster_count;
  bool complete;  // as many clusters as the work is dealt out for
  optimized::many_rows::TileDeal deal;
  unsigned* done = nullptr;

  Task(int step_count, int rows, int columns, int clusters, int missing = 0)
      : steps(step_count),
        row_tiles(rows),
        column_tiles(columns),
        cluster_count(clusters - missing),
        complete(missing == 0),
        deal(rows * columns, step_count, clusters) {}

  [[nodiscard]] int tiles() const { return row_tiles * column_tiles; }
  [[nodiscard]] int clusters() const { return cluster_count; }
};

template <typename Check>
void for_tasks(const Check& check) {
  for (const int steps : {1, 4, 5, 7, 128}) {
    for (const int row_tiles : {1, 2, 7, 8, 9, 20}) {
      for (const int column_tiles : {1, 3, 16, 112}) {
        for (const auto& [clusters, missing] : {std::pair{1, 0}, {5, 0}, {5, 2}, {66, 0}, {66, 2}, {66, 60}}) {
          SCOPED_TRACE(fmt::format("{} steps, {} by {} tiles, {} clusters, {} missing", steps, row_tiles, column_tiles,
                                   clusters, missing));
          check(Task(steps, row_tiles, column_tiles, clusters, missing));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(ManyRowsCut, EveryTileOfTheOutputIsMadeOnce) {
  for_tasks([](const Task& task) {
    std::set<std::pair<int, int>> seen;
    for (int tile = 0; tile < task.tiles(); ++tile) {
      const many_rows::Place place(task, tile);
      ASSERT_EQ(place.row % many_rows::kTileRows, 0);
      ASSERT_EQ(place.column % many_rows::kClusterColumns, 0);
      ASSERT_TRUE(place.row >= 0 && place.row / many_rows::kTileRows < task.row_tiles);
      ASSERT_TRUE(place.column >= 0 && place.column / many_rows::kClusterColumns < task.column_tiles);
      ASSERT_TRUE(seen.insert({place.row, place.column}).second) << "tile " << tile << " is made twice";
    }
  });
}

// Every step of every tile is one cluster's, in the order of a tile's parts.
TEST(ManyRowsCut, EveryStepIsDealtOutOnce) {
  for_tasks([](const Task& task) {
    std::map<int, std::vector<many_rows::TilePart>> parts;
    for (int item = 0; item < task.deal.items(); ++item) {
      const many_rows::TilePart part = task.deal.part(item);
      if (part.steps > 0) parts[part.tile].push_back(part);
    }
    ASSERT_EQ(parts.size(), static_cast<std::size_t>(task.tiles()));
    for (const auto& [tile, own] : parts) {
      int next = 0;
      int number = 0;
      for (const many_rows::TilePart& part : own) {
        ASSERT_EQ(part.first_step, next) << "tile " << tile;
        ASSERT_EQ(part.number, number++) << "tile " << tile;
        next += part.steps;
      }
      ASSERT_EQ(next, task.steps) << "tile " << tile;
      ASSERT_EQ(number, tile < task.deal.whole ? 1 : task.deal.parts);
    }
  });
}

/// The most steps that a cluster has.
int most_steps(const many_rows::TileDeal& deal) {
  std::vector<int> steps(deal.clusters);
  for (int item = 0; item < deal.items(); ++item) steps[item % deal.clusters] += deal.part(item).steps;
  return std::ranges::max(steps);
}

// The last wave takes what its work takes, where that is worth the sharing.
TEST(ManyRowsCut, TilesOfTheLastWaveAreShared) {
  const many_rows::TileDeal by_four(4 * 20, 432, 66);  // 1,024 rows of a weight of 5,120 features
  EXPECT_EQ(by_four.whole, 66);
  EXPECT_EQ(by_four.shared, 14);
  EXPECT_EQ(by_four.parts, 4);
  EXPECT_EQ(by_four.part(66 + 14 + 3).tile, 66 + 3);
  EXPECT_EQ(by_four.part(66 + 14 + 3).first_step, 108);
  EXPECT_EQ(most_steps(by_four), 432 + 108);
  const many_rows::TileDeal short_tiles(8 * 20, 32, 66);
  EXPECT_EQ(short_tiles.shared, 0) << "adding up takes longer";
  EXPECT_EQ(many_rows::TileDeal(3, 64, 66).parts, 4) << "16 steps each";
  EXPECT_EQ(many_rows::TileDeal(4 * 33, 432, 66).shared, 0) << "nothing is left over";
}

// More tiles than half of the clusters: those that are left over take the ends of several tiles each.
TEST(ManyRowsCut, ClustersThatAreLeftOverTakeLastParts) {
  const many_rows::TileDeal few_left(6 * 20, 432, 66);  // 1,500 rows of a weight of 5,120 features
  EXPECT_EQ(few_left.shared, 54);
  EXPECT_EQ(few_left.parts, 2);
  EXPECT_EQ(few_left.last_clusters, 12);
  EXPECT_EQ(few_left.part(66 + 66 + 54).tile, 66 + 12) << "the thirteenth last part is the first cluster's second one";
  EXPECT_EQ(few_left.part(66 + 66).steps, 0) << "the others have none";
  EXPECT_EQ(most_steps(few_left), 432 + 360);
  EXPECT_LT(few_left.waves(), 1.9);
  EXPECT_EQ(most_steps(many_rows::TileDeal(12 * 20, 432, 66)), 3 * 432 + 288);  // 3,000 rows
  EXPECT_EQ(many_rows::TileDeal(8 * 112, 128, 66).shared, 38);
  EXPECT_EQ(many_rows::TileDeal(8 * 8, 128, 66).shared, 0) << "two for the ends of 64";
  EXPECT_EQ(many_rows::TileDeal(8 * 32, 448, 66).shared, 0) << "a twentieth of the wave";
}

/// The step, counted over a cluster's parts, in which some cluster first needs each box: followed part by part.
std::map<std::pair<int, int>, int> first_needs(const Task& task) {
  std::map<std::pair<int, int>, int> needs;
  for (int cluster = 0; cluster < task.clusters(); ++cluster) {
    int done = 0;
    for (int item = cluster; item < task.deal.items(); item += task.clusters()) {
      const many_rows::TilePart part = task.deal.part(item);
      const int column_tile = many_rows::Place(task, part.tile).column / many_rows::kClusterColumns;
      for (int i = 0; i < part.steps; ++i, ++done) {
        const auto [entry, fresh] =
            needs.try_emplace({column_tile, (part.first_step + i) / many_rows::kBoxSteps}, done);
        if (!fresh) entry->second = std::min(entry->second, done);
      }
    }
  }
  return needs;
}

// A warp waits until a piece is due; so one that came late, or never, would stop the product for ever.
TEST(ManyRowsCut, EveryPieceComesOnceAndWhenItIsFirstNeeded) {
  for_tasks([](const Task& task) {
    const auto needs = first_needs(task);
    many_rows::PieceOrder<Task> order(task);
    ASSERT_EQ(order.count(), needs.size() * many_rows::kPieces);
    std::set<std::array<int, 3>> seen;
    int due = 0;
    for (unsigned number = 0; number < order.count(); ++number) {
      const many_rows::Piece piece = order.at(number);
      const auto need = needs.find({piece.box.column_tile, piece.box.inner});
      ASSERT_NE(need, needs.end()) << "a box that no product needs";
      const bool is_last = piece.box.inner >= (task.deal.parts - 1) * task.deal.part_boxes;
      if (task.deal.shared == 0 || (task.complete && !is_last)) {
        ASSERT_EQ(piece.due, need->second);
      } else {  // a cluster may have several last parts, and a wave whole tiles and shared ones
        ASSERT_LE(piece.due, need->second);
      }
      ASSERT_GE(piece.due, due) << "piece " << number << " is due before the one ahead of it";
      ASSERT_TRUE(piece.part >= 0 && piece.part < many_rows::kPieces);
      ASSERT_TRUE(seen.insert({piece.box.column_tile, piece.box.inner, piece.part}).second) << "a piece twice";
      due = piece.due;
    }
  });
}

// A warp sees only some of the numbers, which grow.
TEST(ManyRowsCut, TheOrderIsTheSameForWhoSkipsNumbers) {
  const Task task(9, 5, 40, 7);
  many_rows::PieceOrder<Task> all(task);
  many_rows::PieceOrder<Task> some(task);
  for (unsigned number = 0; number < all.count(); ++number) {
    const many_rows::Piece piece = all.at(number);
    if (number % 23 != 5) continue;
    const many_rows::Piece same = some.at(number);
    ASSERT_EQ(same.box.column_tile, piece.box.column_tile);
    ASSERT_EQ(same.box.inner, piece.box.inner);
    ASSERT_EQ(same.part, piece.part);
    ASSERT_EQ(same.due, piece.due);
  }
}

TEST(ManyRowsCut, EachBoxHasItsOwnCount) {
  std::vector<unsigned> counts(3 * 2);
  Task task(5, 1, 3, 2);
  task.done = counts.data();
  std::set<unsigned*> places;
  for (int column_tile = 0; column_tile < 3; ++column_tile) {
    for (int inner = 0; inner < 2; ++inner) places.insert(many_rows::WeightBox{column_tile, inner}.done(task));
  }
  EXPECT_EQ(places.size(), counts.size());
  EXPECT_EQ(*places.begin(), counts.data());
  EXPECT_EQ(*places.rbegin(), &counts.back());
}

}  // namespace
}  // namespace qshard::test
