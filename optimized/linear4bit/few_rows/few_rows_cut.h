#pragma once

#include <cstdint>

#include "core/tensor/weight4bit.h"
#include "optimized/device_weight4bit.h"
#include "optimized/host_device.h"

// How few_rows_tma.cu cuts the weight. A thread block has one producer warp and 16 consumer warps. The consumers form
// teams of `warps_a_row`; a team owns consecutive weight rows and takes them in row tiles of 16. Along a row a warp of
// the team takes every warps_a_row-th chunk of 256 elements; a segment is one chunk of each. A tile is what a stage of
// shared memory holds: a row tile's segment, of each team.
namespace qshard::optimized::few_rows {

constexpr int kWarps = 16;
constexpr int kConsumers = kWarps * 32;
constexpr int kThreads = kConsumers + 32;
constexpr int kTileRows = 16;       // those of one matrix instruction
constexpr int kHalfRows = 8;        // copied at a time; the unit in which rows are dealt out
constexpr int kGroupElements = 64;  // a group lies inside one block
constexpr int kChunkGroups = 4;
constexpr int kChunk = kChunkGroups * kGroupElements;
constexpr int kChunkBytes = kChunk / 2;
constexpr int kStages = 3;  // 96 KiB on their way keep an H200's memory busy
constexpr int kPartials =
    896;  // floats of a warp: the 14 row tiles of 28672 rows on 132 multiprocessors, for one row of x
constexpr int kMapCopies = 4;  // of the nested map, against bank conflicts
constexpr int kNestedStaged = 512;

struct Tiles {
  int chunks;       // of a weight row
  int warps_a_row;  // a power of two
  int segments;     // of a weight row
  int row_tiles;    // of the team that has most rows
  int batch;        // row tiles whose sums are kept until they are stored

  [[nodiscard]] QSHARD_HOST_DEVICE int teams() const { return kWarps / warps_a_row; }

  /// The first of a team's rows, in units of kHalfRows; that of team teams() is the next thread block's first.
  [[nodiscard]] QSHARD_HOST_DEVICE int first_unit(std::int64_t out_features, std::int64_t thread_block,
                                                  std::int64_t thread_blocks, int team) const {
    const std::int64_t units = (out_features + kHalfRows - 1) / kHalfRows;
    const std::int64_t before = thread_block * teams() + team;
    return static_cast<int>(units * before / (thread_blocks * teams()));
  }
};

/// Halves of a row tile's rows that a team of so many units has.
QSHARD_HOST_DEVICE int halves_of_row_tile(int units, int row_tile) {
  return smaller(2, larger(0, units - 2 * row_tile));
}

struct Cut {
  Tiles tiles;  // but for the batch, which depends on the rows of x
  int thread_blocks;
};

/// The cut with the fewest chunks for the busiest warp; the most warps a row among equals.
inline Cut cut_into_tiles(std::int64_t out_features, std::int64_t in_features, int multiprocessors) {
  Tiles best{};
  std::int64_t fewest = 0;
  for (int warps = kWarps; warps >= 1; warps /= 2) {
    Tiles tiles{};
    tiles.chunks = static_cast<int>(in_features / kChunk);
    tiles.warps_a_row = warps;
    tiles.segments = static_cast<int>(block_count(tiles.chunks, warps));
    const std::int64_t units = block_count(out_features, std::int64_t{kHalfRows} * multiprocessors * tiles.teams());
    const std::int64_t cost = tiles.segments * block_count(units, 2);
    if (warps < kWarps && cost >= fewest) continue;
    best = tiles;
    fewest = cost;
  }
  const std::int64_t units = block_count(out_features, kHalfRows);
  const std::int64_t blocks = block_count(units, best.teams() * 2);
  const int thread_blocks = blocks < multiprocessors ? static_cast<int>(blocks) : multiprocessors;
  best.row_tiles = static_cast<int>(block_count(block_count(units, std::int64_t{thread_blocks} * best.teams()), 2));
  return {best, thread_blocks};
}

/// Rows of x that the kernel is compiled for.
inline int most_rows(int rows) {
  return rows <= 2 ? 2 : 4;
}

/// Of `blocks` thread blocks for `all_features` of several products, those for the first product, which has
/// `out_features` of them: by its share of the weights, but at least one for each of the `others`.
inline int share_of_blocks(int blocks, std::int64_t out_features, std::int64_t all_features, int others) {
  const std::int64_t share = (blocks * out_features + all_features / 2) / all_features;
  return static_cast<int>(larger(1, smaller(blocks - others, static_cast<int>(share))));
}

/// Whether a tile's absmax codes can be copied with it, and all nested statistics of a thread block before.
inline bool can_stage_scales(const DeviceWeight4bit& weight, const Tiles& tiles) {
  const std::int64_t blocks =
      static_cast<std::int64_t>(tiles.row_tiles) * tiles.teams() * kTileRows * tiles.chunks * kChunkGroups;
  return weight.nested() && weight.blocksize == kGroupElements && tiles.chunks % 4 == 0 && tiles.warps_a_row >= 4 &&
         reinterpret_cast<std::uintptr_t>(weight.absmax_codes) % 16 == 0 &&
         blocks / kNestedBlocksize + 2 <= kNestedStaged;
}

}  // namespace qshard::optimized::few_rows
