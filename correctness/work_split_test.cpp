#include "optimized/linear4bit/work_split.h"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace qshard::test {
namespace {

using optimized::WorkSplit;

void check(const WorkSplit& split) {
  SCOPED_TRACE(fmt::format("{} tiles of {} steps for {} workers", split.tiles, split.steps, split.workers));
  const int all = split.tiles * split.steps;
  ASSERT_EQ(split.begin(0), 0);
  ASSERT_EQ(split.begin(split.workers), all);
  int shortest = all;
  int longest = 0;
  std::set<int> slots;
  for (int worker = 0; worker < split.workers; ++worker) {
    const int begin = split.begin(worker);
    const int end = split.begin(worker + 1);
    ASSERT_LT(begin, end) << "worker " << worker << " has nothing";
    shortest = std::min(shortest, end - begin);
    longest = std::max(longest, end - begin);
    ASSERT_EQ(split.worker_of(begin), worker);
    ASSERT_EQ(split.worker_of(end - 1), worker);
    for (int tile = begin / split.steps; tile <= (end - 1) / split.steps; ++tile) {
      if (begin <= tile * split.steps && (tile + 1) * split.steps <= end) continue;  // whole: no partial sums
      const int slot = split.slot(worker, tile);
      ASSERT_GE(slot, 0);
      ASSERT_LT(slot, split.slots());
      ASSERT_TRUE(slots.insert(slot).second) << "two partial sums in slot " << slot;
    }
  }
  ASSERT_LE(longest - shortest, 1);
}

TEST(WorkSplit, DealsOutEveryStepOnce) {
  for (int tiles = 1; tiles <= 12; ++tiles) {
    for (int steps = 1; steps <= 9; ++steps) {
      for (int workers = 1; workers <= tiles * steps + 2; ++workers) {
        check(WorkSplit(tiles, steps, workers));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(WorkSplit, DealsOutTheStepsOfRealLayers) {
  std::mt19937 generator(std::random_device{}());
  std::uniform_int_distribution<int> tiles(1, 700);
  std::uniform_int_distribution<int> steps(1, 300);
  std::uniform_int_distribution<int> workers(1, 160);
  for (int i = 0; i < 300; ++i) {
    check(WorkSplit(tiles(generator), steps(generator), workers(generator)));
    if (HasFatalFailure()) return;
  }
}

TEST(WorkSplit, HasNoMoreWorkersThanSteps) {
  EXPECT_EQ(WorkSplit(1, 3, 132).workers, 3);
  EXPECT_EQ(WorkSplit(150, 64, 132).workers, 132);
}

TEST(WorkSplit, ProductsOfOneLaunchShareTheThreadBlocksByTheirRows) {
  const auto shares_of = [](const std::vector<std::int64_t>& features, int blocks) {
    return optimized::shares_of_blocks(blocks, features);
  };
  EXPECT_EQ(shares_of({4096, 1024, 1024}, 132), (std::vector{88, 22, 22}));
  EXPECT_EQ(shares_of({14336, 14336}, 132), (std::vector{66, 66}));
  EXPECT_EQ(shares_of({1, 8192, 1}, 132), (std::vector{1, 130, 1})) << "each has one at least";
  EXPECT_EQ(shares_of({8192, 1, 1}, 3), (std::vector{1, 1, 1}));
}

}  // namespace
}  // namespace qshard::test
