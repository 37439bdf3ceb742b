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

/// What the cut reads of the kernel's arguments.
struct Task {
  int steps;
  int row_tiles;
  int column_tiles;
  int cluster_count;
  unsigned* done = nullptr;

  [[nodiscard]] int tiles() const { return row_tiles * column_tiles; }
  [[nodiscard]] int clusters() const { return cluster_count; }
};

template <typename Check>
void for_tasks(const Check& check) {
  for (const int steps : {1, 4, 5, 7, 128}) {
    for (const int row_tiles : {1, 2, 7, 8, 9, 20}) {
      for (const int column_tiles : {1, 3, 16, 112}) {
        for (const int clusters : {1, 5, 66}) {
          SCOPED_TRACE(fmt::format("{} steps, {} by {} tiles, {} clusters", steps, row_tiles, column_tiles, clusters));
          check(Task{steps, row_tiles, column_tiles, clusters});
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

/// The step, counted over a cluster's tiles, in which some cluster first needs each box: followed tile by tile.
std::map<std::pair<int, int>, int> first_needs(const Task& task) {
  std::map<std::pair<int, int>, int> needs;
  for (int tile = 0; tile < task.tiles(); ++tile) {
    const int column_tile = many_rows::Place(task, tile).column / many_rows::kClusterColumns;
    for (int step = 0; step < task.steps; step += many_rows::kBoxSteps) {
      const int at = tile / task.clusters() * task.steps + step;
      const auto [entry, fresh] = needs.try_emplace({column_tile, step / many_rows::kBoxSteps}, at);
      if (!fresh) entry->second = std::min(entry->second, at);
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
      ASSERT_EQ(piece.due, need->second);
      ASSERT_GE(piece.due, due) << "piece " << number << " is due before the one ahead of it";
      ASSERT_TRUE(piece.part >= 0 && piece.part < many_rows::kPieces);
      ASSERT_TRUE(seen.insert({piece.box.column_tile, piece.box.inner, piece.part}).second) << "a piece twice";
      due = piece.due;
    }
  });
}

// A warp sees only some of the numbers, which grow.
TEST(ManyRowsCut, TheOrderIsTheSameForWhoSkipsNumbers) {
  const Task task{9, 5, 40, 7};
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
  const Task task{5, 1, 3, 2, counts.data()};
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
