#include "optimized/linear4bit/few_rows/few_rows_cut.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace qshard::test {
namespace {

namespace few_rows = optimized::few_rows;

/// Chunks that the busiest warp multiplies where teams have so many warps.
std::int64_t cost_of(std::int64_t out_features, std::int64_t in_features, int multiprocessors, int warps_a_row) {
  const std::int64_t teams = std::int64_t{multiprocessors} * (few_rows::kWarps / warps_a_row);
  const std::int64_t units = block_count(block_count(out_features, few_rows::kHalfRows), teams);
  const std::int64_t segments = block_count(in_features / few_rows::kChunk, warps_a_row);
  return segments * block_count(units, 2);
}

void check(std::int64_t out_features, std::int64_t in_features, int multiprocessors) {
  SCOPED_TRACE(fmt::format("[{}, {}] on {} multiprocessors", out_features, in_features, multiprocessors));
  const auto [tiles, thread_blocks] = few_rows::cut_into_tiles(out_features, in_features, multiprocessors);
  ASSERT_GE(thread_blocks, 1);
  ASSERT_LE(thread_blocks, multiprocessors);
  ASSERT_EQ(tiles.chunks * few_rows::kChunk, in_features);
  ASSERT_EQ(few_rows::kWarps % tiles.warps_a_row, 0);
  ASSERT_GE(tiles.segments * tiles.warps_a_row, tiles.chunks);
  ASSERT_LT((tiles.segments - 1) * tiles.warps_a_row, tiles.chunks);

  const std::int64_t units = block_count(out_features, few_rows::kHalfRows);
  int next = 0;
  for (int block = 0; block < thread_blocks; ++block) {
    for (int team = 0; team < tiles.teams(); ++team) {
      const int first = tiles.first_unit(out_features, block, thread_blocks, team);
      const int end = tiles.first_unit(out_features, block, thread_blocks, team + 1);
      ASSERT_EQ(first, next) << "rows are left out or dealt out twice at block " << block << " team " << team;
      ASSERT_LE(first, end);
      ASSERT_LE(end - first, 2 * tiles.row_tiles) << "rows that no row tile reaches";
      int halves = 0;
      for (int row_tile = 0; row_tile < tiles.row_tiles; ++row_tile) {
        halves += few_rows::halves_of_row_tile(end - first, row_tile);
      }
      ASSERT_EQ(halves, end - first);
      next = end;
    }
  }
  ASSERT_EQ(next, units);

  const std::int64_t chosen = cost_of(out_features, in_features, multiprocessors, tiles.warps_a_row);
  for (int warps = 1; warps <= few_rows::kWarps; warps *= 2) {
    const std::int64_t other = cost_of(out_features, in_features, multiprocessors, warps);
    ASSERT_LE(chosen, other) << "teams of " << warps << " warps would be faster than of " << tiles.warps_a_row;
    if (warps <= tiles.warps_a_row) continue;
    ASSERT_LT(chosen, other) << "among equals the most warps a row";
  }
}

TEST(FewRowsCut, DealsOutEveryRowOnce) {
  for (const std::int64_t out_features : {1, 7, 8, 9, 16, 100, 1001, 1024, 4096, 11008, 28672, 128256}) {
    for (const std::int64_t in_features : {256, 512, 1280, 4096, 5120, 8192, 11008, 28672}) {
      for (const int multiprocessors : {1, 40, 114, 132}) {
        check(out_features, in_features, multiprocessors);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(FewRowsCut, KeepsTheRowsOfTheLargestLayerInOneBatch) {
  const auto [tiles, thread_blocks] = few_rows::cut_into_tiles(28672, 8192, 132);
  EXPECT_EQ(thread_blocks, 132);
  EXPECT_EQ(tiles.row_tiles, 14);
  EXPECT_LE(tiles.row_tiles * few_rows::kTileRows * 4, few_rows::kPartials) << "one row of x, four groups apart";
}

std::vector<int> shares_of(const std::vector<std::int64_t>& out_features, int blocks) {
  std::int64_t rest = std::reduce(out_features.begin(), out_features.end());
  std::vector<int> shares;
  for (std::size_t i = 0; i < out_features.size(); ++i) {
    const auto others = static_cast<int>(out_features.size() - i) - 1;
    shares.push_back(few_rows::share_of_blocks(blocks, out_features[i], rest, others));
    blocks -= shares.back();
    rest -= out_features[i];
  }
  return shares;
}

TEST(FewRowsCut, ProductsOfOneLaunchShareTheThreadBlocksByTheirRows) {
  EXPECT_EQ(shares_of({4096, 1024, 1024}, 132), (std::vector{88, 22, 22}));
  EXPECT_EQ(shares_of({14336, 14336}, 132), (std::vector{66, 66}));
  EXPECT_EQ(shares_of({1, 8192, 1}, 132), (std::vector{1, 130, 1})) << "each has one at least";
  EXPECT_EQ(shares_of({8192, 1, 1}, 3), (std::vector{1, 1, 1}));
}

TEST(FewRowsCut, StagesScalesOnlyWhereACopyCanFetchThem) {
  optimized::DeviceWeight4bit weight;
  weight.absmax_codes = reinterpret_cast<const std::uint8_t*>(1024);
  few_rows::Tiles tiles{.chunks = 16, .warps_a_row = 16, .segments = 1, .row_tiles = 8, .batch = 8};
  EXPECT_TRUE(few_rows::can_stage_scales(weight, tiles));
  const auto refused = [&](const auto& spoil) {
    auto other_weight = weight;
    auto other_tiles = tiles;
    spoil(other_weight, other_tiles);
    return !few_rows::can_stage_scales(other_weight, other_tiles);
  };
  const float absmax = 1.0F;
  EXPECT_TRUE(refused([&](auto& w, auto&) { w.absmax = &absmax; })) << "not nested";
  EXPECT_TRUE(refused([](auto& w, auto&) { w.blocksize = 128; }));
  EXPECT_TRUE(refused([](auto& w, auto&) { w.absmax_codes += 4; })) << "a copy needs 16 bytes";
  EXPECT_TRUE(refused([](auto&, auto& t) { t.chunks = 18; }));
  EXPECT_TRUE(refused([](auto&, auto& t) { t.warps_a_row = 2; }));
  EXPECT_TRUE(refused([](auto&, auto& t) { t.row_tiles = 2000; })) << "more statistics than there is memory for";
}

}  // namespace
}  // namespace qshard::test
