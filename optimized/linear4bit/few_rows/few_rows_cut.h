#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor/weight4bit.h"
#include "optimized/device_weight4bit.h"
#include "optimized/host_device.h"

// How few_rows_tma.cu cuts the weight. A thread block has one producer warp and up to 20 consumer warps. The consumers
// form teams of `warps_a_row`; a team owns consecutive weight rows. A tile is what a stage of shared memory holds of a
// team: two halves, each of 8 rows by a chunk of 256 elements for every warp. The halves are 16 consecutive rows; or,
// where x has one row, they may lie beside each other, the second half's chunks behind those of the first, so that no
// half is empty whatever number of eights the rows are. A row tile is a tile's rows, a segment its chunks.
namespace qshard::optimized::few_rows {

constexpr int kMostWarps = 20;  // that consume: one for each chunk of 5,120 columns
constexpr int kMostThreads = (kMostWarps + 1) * 32;
constexpr int kHalfRows = 8;        // copied at a time; the unit in which rows are dealt out
constexpr int kGroupElements = 64;  // a group lies inside one block
constexpr int kChunkGroups = 4;
constexpr int kChunk = kChunkGroups * kGroupElements;
constexpr int kChunkBytes = kChunk / 2;
constexpr int kBoxElements = 16 * kGroupElements;  // with 16 bytes of absmax codes
constexpr int kStages = 3;                         // 96 KiB on their way keep an H200's memory busy
constexpr int kPartials = 384;                     // floats of a warp: 24 row tiles for one row of x
constexpr int kMapCopies = 4;                      // of the nested map, against bank conflicts
constexpr int kNestedStaged = 512;
constexpr int kCopies = 32;              // of a stage's codes at most: one a lane of the producer
constexpr int kMostTeams = kCopies / 2;  // each half of a tile is a copy at least
constexpr int kCopiedBytes = 126 << 10;  // of shared memory: the stages of codes, and absmax codes behind them

struct Tiles {
  bool beside;      // the halves of a tile lie beside each other
  int chunks;       // of a weight row; the last may have fewer groups
  int warps_a_row;  // of a team
  int team_factor;  // of team_of()
  int teams;
  int segments;  // of a weight row
  int thread_blocks;
  int units_each;  // units of rows of each team of each thread block;
  int more_each;   // so many of each thread block's first teams have one more,
  int more_rest;   // and one team more than that in so many of the first thread blocks
  int row_tiles;   // of the team that has most rows
  int batch;       // row tiles whose sums are kept until they are stored: depends on the rows of x

  [[nodiscard]] QSHARD_HOST_DEVICE int warps() const { return teams * warps_a_row; }

  /// Of a warp that consumes: warp / warps_a_row, by a multiplication.
  [[nodiscard]] QSHARD_HOST_DEVICE int team_of(int warp) const { return warp * team_factor >> 16; }

  [[nodiscard]] QSHARD_HOST_DEVICE int tile_units() const { return beside ? 1 : 2; }

  [[nodiscard]] QSHARD_HOST_DEVICE int tile_rows() const { return tile_units() * kHalfRows; }

  [[nodiscard]] QSHARD_HOST_DEVICE int segment_chunks() const { return beside ? 2 * warps_a_row : warps_a_row; }

  /// Of a team with so many units.
  [[nodiscard]] QSHARD_HOST_DEVICE int row_tiles_of(int units) const { return beside ? units : (units + 1) / 2; }

  /// Of one half of each team's tile: half a stage.
  [[nodiscard]] QSHARD_HOST_DEVICE int half_bytes() const { return warps() * kHalfRows * kChunkBytes; }

  /// Of all stages' codes.
  [[nodiscard]] QSHARD_HOST_DEVICE int codes_bytes() const { return kStages * 2 * half_bytes(); }

  /// A team's rows, in units of kHalfRows.
  [[nodiscard]] QSHARD_HOST_DEVICE int units_of(int thread_block, int team) const {
    return units_each + (team < teams_with_more(thread_block) ? 1 : 0);
  }

  /// The first of them; that of team `teams` is the next thread block's first.
  [[nodiscard]] QSHARD_HOST_DEVICE int first_unit(int thread_block, int team) const {
    const int more = teams_with_more(thread_block);
    return units_each * (thread_block * teams + team) + more_each * thread_block + smaller(more_rest, thread_block) +
           smaller(more, team);
  }

 private:
  [[nodiscard]] QSHARD_HOST_DEVICE int teams_with_more(int thread_block) const {
    return more_each + (thread_block < more_rest ? 1 : 0);
  }
};

/// Time of the busiest thread block, in eighths of a warp's share of a tile. Measured on an H200: tiles of few warps
/// take as long as those of 14, and a segment, which loads its part of x, an eighth more.
inline std::int64_t cost_of(const Tiles& tiles, std::int64_t out_features, int multiprocessors) {
  const auto units = static_cast<int>(block_count(out_features, std::int64_t{kHalfRows} * multiprocessors));
  const int each = units / tiles.teams;
  const int rest = units % tiles.teams;  // teams that have one more
  const int whole = tiles.row_tiles_of(each);
  const int last_warps = tiles.row_tiles_of(each + 1) > whole ? rest * tiles.warps_a_row : 0;
  const std::int64_t tile = larger(14, tiles.warps());
  const std::int64_t last = last_warps > 0 ? larger(14, last_warps) : 0;
  return tiles.segments * (8 * (whole * tile + last) + tile);
}

/// Whether the warps' absmax codes of a segment can be copied in boxes, which begin at multiples of 16 bytes.
inline bool has_whole_boxes(const Tiles& tiles) {
  return tiles.segment_chunks() % 4 == 0 || tiles.segments == 1;
}

/// Teams of so many warps, as many as a thread block holds; rows are not yet dealt out.
inline Tiles teams_of(int warps, int most_warps, int chunks, bool beside) {
  Tiles tiles{};
  tiles.beside = beside;
  tiles.chunks = chunks;
  tiles.warps_a_row = warps;
  tiles.team_factor = (1 << 16) / warps + 1;
  tiles.teams = smaller(most_warps / warps, kMostTeams);
  tiles.segments = static_cast<int>(block_count(chunks, tiles.segment_chunks()));
  return tiles;
}

/// Pieces of a chunk that a copy of many chunks leaves together in shared memory, all rows' first such piece before
/// their second: the chunk is one, or two where rows end with half a chunk. 0 where they end within one: there each
/// chunk is a copy.
inline int copied_pieces(std::int64_t in_features) {
  for (const int pieces : {1, 2}) {
    if (in_features % (kChunk / pieces) == 0) return pieces;
  }
  return 0;
}

/// The cut that costs least, of those with whole boxes where rows of scales allow boxes; the most warps a row among
/// equals. The one of most warps has whole boxes.
inline Tiles cut_into_tiles(std::int64_t out_features, std::int64_t in_features, bool beside, int multiprocessors) {
  // Where rows do not end with a chunk, each chunk may be a copy, and all absmax codes of the thread block need room.
  const int most_warps = in_features % kChunk == 0 ? kMostWarps : kCopies / 2;
  const int chunks = static_cast<int>(block_count(in_features, kChunk));
  Tiles best = teams_of(smaller(most_warps, beside ? (chunks + 1) / 2 : chunks), most_warps, chunks, beside);
  for (int warps = best.warps_a_row - 1; warps >= 1; --warps) {
    const Tiles tiles = teams_of(warps, most_warps, chunks, beside);
    if (in_features % kBoxElements == 0 && !has_whole_boxes(tiles)) continue;
    if (cost_of(tiles, out_features, multiprocessors) < cost_of(best, out_features, multiprocessors)) best = tiles;
  }
  const std::int64_t units = block_count(out_features, kHalfRows);
  const std::int64_t blocks = block_count(units, std::int64_t{best.tile_units()} * best.teams);
  best.thread_blocks = blocks < multiprocessors ? static_cast<int>(blocks) : multiprocessors;
  const std::int64_t parts = std::int64_t{best.thread_blocks} * best.teams;
  best.units_each = static_cast<int>(units / parts);
  best.more_each = static_cast<int>(units % parts) / best.thread_blocks;
  best.more_rest = static_cast<int>(units % parts) % best.thread_blocks;
  best.row_tiles = best.row_tiles_of(static_cast<int>(block_count(units, parts)));
  return best;
}

/// The cuts of a launch's products of so many rows of x, each for its share of the multiprocessors. The halves of all
/// tiles lie beside each other where the product that takes longest then takes less time by more than a twentieth, or
/// where rows of the weight then are one segment instead of several and it does not take more: on an H200 the other cut
/// is as fast or faster elsewhere.
inline std::vector<Tiles> cut_products(std::span<const std::int64_t> out_features, std::int64_t in_features, int rows,
                                       std::span<const int> multiprocessors) {
  struct Cuts {
    std::vector<Tiles> tiles;
    std::int64_t cost = 0;
    int segments = 0;  // of the product that has most
  };
  const auto cut = [&](bool beside) {
    Cuts cuts;
    for (std::size_t i = 0; i < out_features.size(); ++i) {
      cuts.tiles.push_back(cut_into_tiles(out_features[i], in_features, beside, multiprocessors[i]));
      cuts.cost = std::max(cuts.cost, cost_of(cuts.tiles.back(), out_features[i], multiprocessors[i]));
      cuts.segments = std::max(cuts.segments, cuts.tiles.back().segments);
    }
    return cuts;
  };
  const Cuts stacked = cut(false);
  if (rows > 1) return stacked.tiles;
  const Cuts beside = cut(true);
  const bool is_whole = beside.segments == 1 && stacked.segments > 1 && beside.cost <= stacked.cost;
  return is_whole || 20 * beside.cost < 19 * stacked.cost ? beside.tiles : stacked.tiles;
}

/// Rows of x that the kernel is compiled for; for halves beside each other it is another one, of one row.
inline int most_rows(int rows) {
  return rows <= 2 ? 2 : 4;
}

/// Where the consumers find a chunk's absmax codes.
enum class ScaleSource {
  lane,          // each lane loads its own from device memory
  segment,       // they are copied with each tile, as a box of a tensor map
  thread_block,  // the thread block's are copied at once, row after row as in device memory
};

/// How copied absmax codes lie in shared memory.
struct ScaleLayout {
  ScaleSource source = ScaleSource::lane;
  int pitch = 0;        // bytes from row to row
  int stage_bytes = 0;  // from stage to stage
};

inline ScaleLayout scale_layout(const DeviceWeight4bit& weight, std::int64_t out_features, std::int64_t in_features,
                                const Tiles& tiles) {
  // Of a thread block.
  const std::int64_t rows = static_cast<std::int64_t>(tiles.row_tiles) * tiles.teams * tiles.tile_rows();
  const auto row_bytes = static_cast<int>(block_count(in_features, kGroupElements));
  const bool copies = weight.nested() && weight.blocksize == kGroupElements && out_features % kHalfRows == 0 &&
                      reinterpret_cast<std::uintptr_t>(weight.absmax_codes) % 16 == 0;
  // The blocks of nested statistics that rows begin and end in, and one for groups past a row's end.
  if (!copies || rows * row_bytes / kNestedBlocksize + 3 > kNestedStaged) return {};
  const int room = kCopiedBytes - tiles.codes_bytes();
  const int pitch = static_cast<int>(block_count(std::int64_t{kChunkGroups} * tiles.segment_chunks(), 16)) * 16;
  const int stage_bytes = tiles.teams * tiles.tile_rows() * pitch;
  if (in_features % kBoxElements == 0 && has_whole_boxes(tiles) && kStages * stage_bytes <= room) {
    return {ScaleSource::segment, pitch, stage_bytes};
  }
  // A copy of eight rows is a multiple of 16 bytes.
  if (row_bytes % 2 == 0 && rows * row_bytes <= room) return {ScaleSource::thread_block, row_bytes, 0};
  return {};
}

}  // namespace qshard::optimized::few_rows
