#include "core/training/batch_schedule.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include <gtest/gtest.h>

namespace qshard {
namespace {

std::vector<RowChoice> flat(const std::vector<std::vector<std::vector<RowChoice>>>& rows) {
  std::vector<RowChoice> all;
  for (const auto& ranks : rows) {
    for (const auto& choices : ranks) all.insert(all.end(), choices.begin(), choices.end());
  }
  return all;
}

TEST(BatchSchedule, TakesRowsInFileOrderRankByRank) {
  BatchSchedule schedule(single_rows(10), {2, 2, 2, false, 0});
  EXPECT_EQ(schedule.steps_per_epoch(), 2);
  const auto first = schedule.rows_of_step(1);
  EXPECT_EQ(first[0][0], (std::vector<RowChoice>{{0, 0}, {1, 1}}));
  EXPECT_EQ(first[0][1], (std::vector<RowChoice>{{2, 2}, {3, 3}}));
  EXPECT_EQ(first[1][1], (std::vector<RowChoice>{{6, 6}, {7, 7}}));
  const auto last = schedule.rows_of_step(2);
  EXPECT_EQ(last[0][0], (std::vector<RowChoice>{{8, 8}, {9, 9}}));
  EXPECT_TRUE(last[0][1].empty());
  EXPECT_TRUE(last[1][0].empty());
  EXPECT_EQ(schedule.rows_of_step(3)[0][0], (std::vector<RowChoice>{{0, 10}, {1, 11}}));  // the second epoch
}

TEST(BatchSchedule, EveryEpochTakesEachRowOnceInAnotherOrder) {
  constexpr std::int64_t kRows = 101;
  BatchSchedule schedule(single_rows(kRows), {1, 8, 1, true, 7});
  std::vector<std::vector<std::int64_t>> epochs(2);
  for (std::int64_t step = 1; step <= 2 * schedule.steps_per_epoch(); ++step) {
    for (const RowChoice& choice : flat(schedule.rows_of_step(step))) {
      epochs[static_cast<std::size_t>((step - 1) / schedule.steps_per_epoch())].push_back(choice.row);
    }
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_FALSE(std::ranges::is_sorted(epochs[0]));
  for (auto& epoch : epochs) {
    std::ranges::sort(epoch);
    EXPECT_EQ(epoch, single_rows(kRows).rows);
  }
}

TEST(BatchSchedule, StepsHoldTheSameRowsHoweverTheyAreSplit) {
  BatchSchedule whole(single_rows(50), {1, 12, 1, true, 3});
  BatchSchedule split(single_rows(50), {3, 2, 2, true, 3});
  for (std::int64_t step = 1; step <= 12; ++step) {
    EXPECT_EQ(flat(whole.rows_of_step(step)), flat(split.rows_of_step(step))) << step;
  }
}

TEST(BatchSchedule, AStepDoesNotDependOnTheOnesBefore) {
  BatchSchedule straight(single_rows(37), {1, 4, 1, true, 11});
  for (std::int64_t step = 1; step < 25; ++step) straight.rows_of_step(step);
  BatchSchedule jumped(single_rows(37), {1, 4, 1, true, 11});
  EXPECT_EQ(straight.rows_of_step(25), jumped.rows_of_step(25));
}

TEST(BatchSchedule, SeedChangesTheOrder) {
  BatchSchedule a(single_rows(64), {1, 64, 1, true, 1});
  BatchSchedule b(single_rows(64), {1, 64, 1, true, 2});
  EXPECT_NE(a.rows_of_step(1), b.rows_of_step(1));
}

TEST(BatchSchedule, EpochsRoundUpToSteps) {
  const BatchSchedule schedule(single_rows(10), {1, 4, 1, false, 0});
  EXPECT_EQ(schedule.steps_in(1.0), 3);
  EXPECT_EQ(schedule.steps_in(0.5), 2);
  EXPECT_EQ(schedule.steps_in(3.0), 9);
}

TEST(PackRows, FillsGroupsWithoutExceedingTheLength) {
  constexpr std::int64_t kLength = 64;
  std::mt19937 generator(5);
  PreparedDataset dataset;
  for (int row = 0; row < 300; ++row) {
    const std::int64_t tokens = 1 + static_cast<std::int64_t>(generator() % kLength);
    dataset.input_ids.resize(dataset.input_ids.size() + static_cast<std::size_t>(tokens));
    dataset.offsets.push_back(dataset.tokens());
  }
  const RowGroups groups = pack_rows(dataset, kLength);
  std::set<std::int64_t> seen;
  for (std::int64_t g = 0; g < groups.count(); ++g) {
    std::int64_t tokens = 0;
    for (const std::int64_t row : groups.group(g)) {
      tokens += dataset.row_tokens(row);
      EXPECT_TRUE(seen.insert(row).second);
    }
    EXPECT_LE(tokens, kLength);
  }
  EXPECT_EQ(static_cast<std::int64_t>(seen.size()), dataset.rows());
  // Best fit decreasing needs at most 11/9 of the fewest bins plus one, and those hold at least all tokens.
  const double fewest = static_cast<double>(dataset.tokens()) / kLength;
  EXPECT_LE(static_cast<double>(groups.count()), fewest * 11 / 9 + 1);
}

TEST(PackRows, GivesRowsOfAGroupTheirOwnIds) {
  PreparedDataset dataset;
  dataset.input_ids.resize(9);
  dataset.offsets = {0, 3, 6, 9};
  BatchSchedule schedule(pack_rows(dataset, 6), {1, 1, 1, false, 0});
  EXPECT_EQ(schedule.steps_per_epoch(), 2);
  EXPECT_EQ(flat(schedule.rows_of_step(1)), (std::vector<RowChoice>{{0, 0}, {1, 1}}));
  EXPECT_EQ(flat(schedule.rows_of_step(2)), (std::vector<RowChoice>{{2, 2}}));
  EXPECT_EQ(flat(schedule.rows_of_step(3)), (std::vector<RowChoice>{{0, 3}, {1, 4}}));
}

}  // namespace
}  // namespace qshard
