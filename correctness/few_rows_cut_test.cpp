#include "optimized/linear4bit/few_rows/few_rows_cut.h"

#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace qshard::test {
namespace {

namespace few_rows = optimized::few_rows;

/// Eighths of a chunk of the busiest thread block where teams have so many warps: see few_rows_cut.h. 0: these cannot
/// be.
std::int64_t cost_of(std::int64_t out_features, std::int64_t in_features, int multiprocessors, int warps_a_row) {
  const std::int64_t chunks = block_count(in_features, few_rows::kChunk);
  const std::int64_t most_warps = in_features % few_rows::kChunk == 0 ? few_rows::kMostWarps : 16;
  if (warps_a_row > std::min(most_warps, chunks)) return 0;
  const std::int64_t teams = std::min<std::int64_t>(most_warps / warps_a_row, 16);
  const std::int64_t units = block_count(block_count(out_features, few_rows::kHalfRows), multiprocessors * teams);
  const std::int64_t segments = block_count(chunks, warps_a_row);
  if (in_features % 1024 == 0 && segments > 1 && warps_a_row % 4 != 0) return 0;  // no boxes of scales
  return segments * (8 * block_count(units, 2) + 1) * std::max<std::int64_t>(14, teams * warps_a_row);
}

void check(std::int64_t out_features, std::int64_t in_features, int multiprocessors) {
  SCOPED_TRACE(fmt::format("[{}, {}] on {} multiprocessors", out_features, in_features, multiprocessors));
  const few_rows::Tiles tiles = few_rows::cut_into_tiles(out_features, in_features, multiprocessors);
  ASSERT_GE(tiles.thread_blocks, 1);
  ASSERT_LE(tiles.thread_blocks, multiprocessors);
  ASSERT_EQ(tiles.chunks, block_count(in_features, few_rows::kChunk));
  ASSERT_LE(tiles.warps(), few_rows::kMostWarps);
  ASSERT_GE(tiles.warps() * 32, 256) << "as many threads fill the table";
  ASSERT_LE(tiles.codes_bytes(), few_rows::kCopiedBytes);
  ASSERT_LE(2 * tiles.teams * (in_features % 128 == 0 ? 1 : tiles.warps_a_row), few_rows::kCopies);
  ASSERT_GE(tiles.segments * tiles.warps_a_row, tiles.chunks);
  ASSERT_LT((tiles.segments - 1) * tiles.warps_a_row, tiles.chunks);

  int next = 0;
  for (int block = 0; block < tiles.thread_blocks; ++block) {
    for (int team = 0; team < tiles.teams; ++team) {
      const int first = tiles.first_unit(block, team);
      const int end = tiles.first_unit(block, team + 1);
      ASSERT_EQ(first, next) << "rows are left out or dealt out twice at block " << block << " team " << team;
      ASSERT_LE(first, end);
      ASSERT_LE(end - first, 2 * tiles.row_tiles) << "rows that no row tile reaches";
      next = end;
    }
    ASSERT_LT(tiles.first_unit(block, 0), next) << "a thread block without rows";
  }
  ASSERT_EQ(next, block_count(out_features, few_rows::kHalfRows));

  const std::int64_t chosen = cost_of(out_features, in_features, multiprocessors, tiles.warps_a_row);
  ASSERT_GT(chosen, 0);
  for (int warps = 1; warps <= few_rows::kMostWarps; ++warps) {
    const std::int64_t other = cost_of(out_features, in_features, multiprocessors, warps);
    if (other == 0 || warps == tiles.warps_a_row) continue;
    ASSERT_LE(chosen, other) << "teams of " << warps << " warps would be faster than of " << tiles.warps_a_row;
    if (warps < tiles.warps_a_row) continue;
    ASSERT_LT(chosen, other) << "among equals the most warps a row";
  }
}

TEST(FewRowsCut, DealsOutEveryRowOnce) {
  for (const std::int64_t out_features : {1, 7, 8, 9, 16, 100, 1001, 1024, 4096, 11008, 28672, 128256}) {
    for (const std::int64_t in_features :
         {64, 256, 320, 512, 1280, 2304, 4096, 5120, 5376, 8192, 11008, 28672, 29568}) {
      for (const int multiprocessors : {1, 40, 114, 132}) {
        check(out_features, in_features, multiprocessors);
        if (HasFatalFailure()) return;
      }
    }
  }
}

few_rows::Tiles cut(std::int64_t out_features, std::int64_t in_features) {
  return few_rows::cut_into_tiles(out_features, in_features, 132);
}

TEST(FewRowsCut, GivesEachChunkOfARowAWarpWhereThatCostsLeast) {
  EXPECT_EQ(cut(27648, 5120).warps_a_row, 20);
  EXPECT_EQ(cut(27648, 5120).segments, 1);
  EXPECT_EQ(cut(28672, 8192).warps_a_row, 16) << "20 would leave eight of 40 idle";
  EXPECT_EQ(cut(5120, 27648).warps_a_row, 16) << "18 would need fewer chunks, but their scales make no boxes";
  EXPECT_EQ(cut(5120, 13824).warps_a_row, 18) << "no number of warps makes boxes there";
  EXPECT_EQ(cut(18944, 3584).warps_a_row, 14);
  EXPECT_EQ(cut(8192, 29568).warps_a_row, 15) << "more would leave no room for absmax codes";
  EXPECT_EQ(cut(8192, 1024).teams, 5) << "of four warps";
}

TEST(FewRowsCut, KeepsTheRowsOfTheLargestLayerInOneBatch) {
  const few_rows::Tiles tiles = cut(28672, 8192);
  EXPECT_EQ(tiles.thread_blocks, 132);
  EXPECT_EQ(tiles.row_tiles, 14);
  EXPECT_LE(tiles.row_tiles * few_rows::kTileRows, few_rows::kPartials) << "one row of x";
}

using few_rows::ScaleSource;

TEST(FewRowsCut, CopiesScalesWhereRowsAreWholeCopies) {
  optimized::DeviceWeight4bit weight;
  weight.absmax_codes = reinterpret_cast<const std::uint8_t*>(1024);
  const auto layout_of = [&](std::int64_t out_features, std::int64_t in_features) {
    return few_rows::scale_layout(weight, out_features, in_features, cut(out_features, in_features));
  };
  EXPECT_EQ(layout_of(28672, 8192).source, ScaleSource::segment);
  EXPECT_EQ(layout_of(28672, 8192).pitch, 64);
  EXPECT_EQ(layout_of(28672, 8192).stage_bytes, 1024);
  EXPECT_EQ(layout_of(27648, 5120).pitch, 80);
  EXPECT_EQ(layout_of(18944, 3584).source, ScaleSource::thread_block) << "rows of 56 bytes";
  EXPECT_EQ(layout_of(18944, 3584).pitch, 56);
  EXPECT_EQ(layout_of(8192, 29568).source, ScaleSource::thread_block) << "rows of 462 bytes";
  EXPECT_EQ(layout_of(16384, 29568).source, ScaleSource::lane) << "too many of them";
  EXPECT_EQ(layout_of(1024, 320).source, ScaleSource::lane) << "rows of 5 bytes: eight are no copy";
  EXPECT_EQ(layout_of(1001, 8192).source, ScaleSource::lane) << "a copy would read past the end";
  EXPECT_EQ(layout_of(128256, 8192).source, ScaleSource::segment);
  EXPECT_EQ(layout_of(128256, 28672).source, ScaleSource::lane) << "more nested statistics than there is memory for";
}

TEST(FewRowsCut, CopiesNoScalesOfWeightsOfAnotherKind) {
  const few_rows::Tiles tiles = cut(4096, 4096);
  const auto source_of = [&](const auto& spoil) {
    optimized::DeviceWeight4bit weight;
    weight.absmax_codes = reinterpret_cast<const std::uint8_t*>(1024);
    spoil(weight);
    return few_rows::scale_layout(weight, 4096, 4096, tiles).source;
  };
  const float absmax = 1.0F;
  EXPECT_EQ(source_of([](auto&) {}), ScaleSource::segment);
  EXPECT_EQ(source_of([&](auto& w) { w.absmax = &absmax; }), ScaleSource::lane) << "not nested";
  EXPECT_EQ(source_of([](auto& w) { w.blocksize = 128; }), ScaleSource::lane);
  EXPECT_EQ(source_of([](auto& w) { w.absmax_codes += 4; }), ScaleSource::lane) << "a copy needs 16 bytes";
}

}  // namespace
}  // namespace qshard::test
