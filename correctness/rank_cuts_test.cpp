#include "optimized/lora/rank_cuts.h"

#include <vector>

#include <gtest/gtest.h>

#include "optimized/lora/column_groups.h"

namespace qshard::optimized {
namespace {

TEST(RankCuts, SlicesCoverEveryStepOnce) {
  for (const std::int64_t tokens : {1, 127, 129, 2048, 4096, 16384, 100000}) {
    for (const std::int64_t features : {1, 64, 1024, 8192, 28672}) {
      for (int groups = 1; groups <= kMostColumnGroups; ++groups) {
        const SumCut product = cut_product(tokens, features, groups);
        const std::int64_t product_steps = divide_up(features, kProductDepth);
        EXPECT_GE(std::int64_t{product.slices} * product.steps_a_slice, product_steps);
        EXPECT_LT(std::int64_t{product.slices - 1} * product.steps_a_slice, product_steps);
        const SumCut gradient = cut_gradient(tokens, features, groups);
        const std::int64_t gradient_steps = divide_up(tokens, kGradientTokens);
        EXPECT_GE(std::int64_t{gradient.slices} * gradient.steps_a_slice, gradient_steps);
        EXPECT_LT(std::int64_t{gradient.slices - 1} * gradient.steps_a_slice, gradient_steps);
      }
    }
  }
}

/// A workspace planned for the most tokens holds the partial sums of every smaller number.
TEST(RankCuts, RoomForPartialSumsGrowsWithTheTokens) {
  for (const std::int64_t features : {1, 64, 1024, 8192, 28672}) {
    for (int groups = 1; groups <= kMostColumnGroups; ++groups) {
      std::int64_t rows = 0;
      std::int64_t slices = 0;
      for (std::int64_t tokens = 1; tokens < 20000; tokens += 1 + tokens / 7) {
        EXPECT_GE(product_partial_rows(tokens, features, groups),
                  tokens * cut_product(tokens, features, groups).slices);
        EXPECT_GE(gradient_slices(tokens, features, groups), cut_gradient(tokens, features, groups).slices);
        EXPECT_GE(product_partial_rows(tokens, features, groups), rows);
        EXPECT_GE(gradient_slices(tokens, features, groups), slices);
        rows = product_partial_rows(tokens, features, groups);
        slices = gradient_slices(tokens, features, groups);
      }
    }
  }
}

TEST(RankCuts, ColumnGroupsCoverEveryRankOnce) {
  for (const bool widest : {false, true}) {
    for (const std::vector<std::int64_t>& ranks :
         std::vector<std::vector<std::int64_t>>{{1}, {16}, {17}, {8, 64, 3}, {100, 65}, {256, 256, 256}}) {
      const ColumnGroups groups(ranks, widest);
      EXPECT_EQ(groups.count, count_groups(ranks));
      EXPECT_LE(groups.block_groups, kMostBlockGroups);
      EXPECT_EQ(groups.tiles, widest ? 8 : group_tiles(*std::max_element(ranks.begin(), ranks.end())));
      std::vector<std::int64_t> covered(ranks.size(), 0);
      for (int i = 0; i < groups.count; ++i) {
        EXPECT_EQ(groups.groups[i].first, covered[groups.groups[i].product]);
        covered[groups.groups[i].product] += 8 * groups.tiles;
      }
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        EXPECT_GE(covered[i], ranks[i]);
        EXPECT_LT(covered[i] - 8 * groups.tiles, ranks[i]);
      }
    }
  }
}

}  // namespace
}  // namespace qshard::optimized
