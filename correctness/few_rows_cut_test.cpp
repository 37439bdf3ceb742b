#include "optimized/linear4bit/few_rows/few_rows_cut.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "optimized/linear4bit/work_split.h"

namespace qshard::test {
namespace {

namespace few_rows = optimized::few_rows;

/// Eighths of a warp's share of a tile of the busiest thread block where teams have so many warps: see few_rows_cut.h.
/// 0: these cannot be.
std::int64_t cost_of(std::int64_t out_features, std::int64_t in_features, bool beside, int multiprocessors,
                     int warps_a_row) {
  const std::int64_t chunks = block_count(in_features, few_rows::kChunk);
  const std::int64_t most_warps = in_features % few_rows::kChunk == 0 ? few_rows::kMostWarps : 16;
  const std::int64_t segment = beside ? 2 * warps_a_row : warps_a_row;
  if (warps_a_row > std::min(most_warps, beside ? (chunks + 1) / 2 : chunks)) return 0;
  const std::int64_t teams = std::min<std::int64_t>(most_warps / warps_a_row, 16);
  const std::int64_t segments = block_count(chunks, segment);
  if (in_features % 1024 == 0 && segments > 1 && segment % 4 != 0) return 0;  // no boxes of scales
  const std::int64_t units = block_count(out_features, std::int64_t{few_rows::kHalfRows} * multiprocessors);
  std::int64_t cost = segments * std::max<std::int64_t>(14, teams * warps_a_row);
  for (std::int64_t tile = 0;; ++tile) {
    std::int64_t busy = 0;  // teams that have such a tile
    for (std::int64_t team = 0; team < teams; ++team) {
      const std::int64_t own = units / teams + (team < units % teams ? 1 : 0);
      if ((beside ? own : block_count(own, 2)) > tile) ++busy;
    }
    if (busy == 0) return cost;
    cost += segments * 8 * std::max<std::int64_t>(14, busy * warps_a_row);
  }
}

void check(std::int64_t out_features, std::int64_t in_features, bool beside, int multiprocessors) {
  SCOPED_TRACE(
      fmt::format("[{}, {}] beside {} on {} multiprocessors", out_features, in_features, beside, multiprocessors));
  const few_rows::Tiles tiles = few_rows::cut_into_tiles(out_features, in_features, beside, multiprocessors);
  ASSERT_EQ(tiles.beside, beside);
  ASSERT_GE(tiles.thread_blocks, 1);
  ASSERT_LE(tiles.thread_blocks, multiprocessors);
  ASSERT_EQ(tiles.chunks, block_count(in_features, few_rows::kChunk));
  ASSERT_LE(tiles.warps(), few_rows::kMostWarps);
  ASSERT_LE(tiles.teams, few_rows::kMostTeams);
  ASSERT_GE(tiles.warps() * 32, 256) << "as many threads fill the table";
  for (int warp = 0; warp < few_rows::kMostWarps; ++warp) ASSERT_EQ(tiles.team_of(warp), warp / tiles.warps_a_row);
  ASSERT_LE(tiles.codes_bytes(), few_rows::kCopiedBytes);
  ASSERT_LE(2 * tiles.teams * (in_features % 128 == 0 ? 1 : tiles.warps_a_row), few_rows::kCopies);
  ASSERT_GE(tiles.segments * tiles.segment_chunks(), tiles.chunks);
  ASSERT_LT((tiles.segments - 1) * tiles.segment_chunks(), tiles.chunks);

  const std::int64_t units = block_count(out_features, few_rows::kHalfRows);
  const std::int64_t least = units / tiles.thread_blocks;
  int next = 0;
  for (int block = 0; block < tiles.thread_blocks; ++block) {
    for (int team = 0; team < tiles.teams; ++team) {
      const int first = tiles.first_unit(block, team);
      const int end = tiles.first_unit(block, team + 1);
      ASSERT_EQ(first, next) << "rows are left out or dealt out twice at block " << block << " team " << team;
      ASSERT_LE(first, end);
      ASSERT_EQ(tiles.units_of(block, team), end - first);
      ASSERT_LE(end - first, tiles.tile_units() * tiles.row_tiles) << "rows that no row tile reaches";
      next = end;
    }
    const int own = next - tiles.first_unit(block, 0);
    ASSERT_GE(own, 1) << "a thread block without rows";
    ASSERT_TRUE(own == least || own == least + 1) << own << " units of a thread block, " << least << " of another";
  }
  ASSERT_EQ(next, units);

  const std::int64_t chosen = cost_of(out_features, in_features, beside, multiprocessors, tiles.warps_a_row);
  ASSERT_GT(chosen, 0);
  for (int warps = 1; warps <= few_rows::kMostWarps; ++warps) {
    const std::int64_t other = cost_of(out_features, in_features, beside, multiprocessors, warps);
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
      for (const bool beside : {true, false}) {
        for (const int multiprocessors : {1, 40, 114, 132}) {
          check(out_features, in_features, beside, multiprocessors);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

few_rows::Tiles cut(std::int64_t out_features, std::int64_t in_features, bool beside = false) {
  return few_rows::cut_into_tiles(out_features, in_features, beside, 132);
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

TEST(FewRowsCut, LaysTheHalvesBesideEachOther) {
  EXPECT_EQ(cut(27648, 5120, true).warps_a_row, 10);
  EXPECT_EQ(cut(27648, 5120, true).segments, 1);
  EXPECT_EQ(cut(8192, 8192, true).segments, 1) << "of 32 chunks";
  EXPECT_EQ(cut(8192, 8192).segments, 2);
  EXPECT_EQ(cut(5120, 27648, true).row_tiles, 5) << "640 units of eight rows: none is half empty";
  EXPECT_EQ(cut(5120, 27648).row_tiles, 3);
  EXPECT_EQ(cut(3584, 18944, true).segments, 2) << "74 chunks: two warps have none for the second half at last";
}

/// Whether the products' halves lie beside each other; their multiprocessors follow from their work.
bool lie_beside(const std::vector<std::int64_t>& out_features, std::int64_t in_features, int rows = 1) {
  const std::vector<int> shares = optimized::shares_of_blocks(132, out_features);
  const std::vector<few_rows::Tiles> tiles = few_rows::cut_products(out_features, in_features, rows, shares);
  EXPECT_EQ(tiles.size(), out_features.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    EXPECT_EQ(tiles[i].beside, tiles[0].beside) << "one kernel multiplies all products";
    EXPECT_LE(tiles[i].thread_blocks, shares[i]);
    EXPECT_EQ(tiles[i].warps_a_row,
              few_rows::cut_into_tiles(out_features[i], in_features, tiles[i].beside, shares[i]).warps_a_row);
  }
  return tiles[0].beside;
}

TEST(FewRowsCut, LaysHalvesBesideEachOtherForOneRowWhereThatCostsLess) {
  EXPECT_TRUE(lie_beside({5120}, 27648)) << "five tiles of eight rows, not three of sixteen";
  EXPECT_TRUE(lie_beside({5120}, 13824));
  EXPECT_TRUE(lie_beside({5120}, 5120));
  EXPECT_TRUE(lie_beside({4096}, 14336)) << "fewer segments";
  EXPECT_TRUE(lie_beside({1024}, 4096));
  EXPECT_FALSE(lie_beside({5120}, 27648, 2));
  EXPECT_FALSE(lie_beside({1024}, 4096, 4));
  EXPECT_TRUE(lie_beside({28672}, 8192)) << "less by a two hundredth, but one segment, not two";
  EXPECT_FALSE(lie_beside({27648}, 5120)) << "less by a fiftieth";
  EXPECT_FALSE(lie_beside({8192}, 28672));
  EXPECT_FALSE(lie_beside({18944}, 3584)) << "as much";
  EXPECT_FALSE(lie_beside({4096}, 11008)) << "more";
}

TEST(FewRowsCut, LaysHalvesBesideEachOtherWhereTheLongestProductOfALaunchTakesLess) {
  EXPECT_TRUE(lie_beside({5120, 1024, 1024}, 5120));
  EXPECT_FALSE(lie_beside({5120, 1024, 1024}, 5120, 2));
  EXPECT_FALSE(lie_beside({5120, 5120, 5120}, 5120));
  EXPECT_FALSE(lie_beside({4096, 1024, 1024}, 4096));
  EXPECT_FALSE(lie_beside({14336, 14336}, 4096));
}

TEST(FewRowsCut, KeepsTheRowsOfTheLargestLayerInOneBatch) {
  for (const bool beside : {true, false}) {
    const few_rows::Tiles tiles = cut(28672, 8192, beside);
    EXPECT_EQ(tiles.thread_blocks, 132);
    EXPECT_EQ(tiles.row_tiles, beside ? 28 : 14);
    EXPECT_LE(tiles.row_tiles * tiles.tile_rows(), few_rows::kPartials) << "for one row";
  }
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
  EXPECT_EQ(few_rows::scale_layout(weight, 8192, 8192, cut(8192, 8192, true)).pitch, 128) << "of both halves";
  EXPECT_EQ(few_rows::scale_layout(weight, 8192, 8192, cut(8192, 8192, true)).stage_bytes, 1024);
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
