#pragma once

#include <cstdint>

#include "optimized/host_device.h"

// How many_rows.cu cuts a product out = in op(W): the forward one, whose output columns are the weight's rows,
// and the gradient, whose output columns are the weight's columns. A thread block makes tiles of 256 rows by 128
// columns of the output, in steps of 64 along the inner dimension, each one stage of shared memory. Two thread blocks,
// a cluster, make neighbouring tiles of the same rows at the same time and load `in` for both. Besides, some warps of
// each thread block dequantize the weight to device memory, just ahead of the copies that read it there. Tiles that
// would leave clusters idle in the last wave are shared.
//
// In which order many_rows.cu dequantizes the weight. A box of 256 by 256 elements is what a cluster needs for
// kBoxSteps steps; it is dequantized in pieces of some of the weight's rows, by one warp each.
//
// A task here is anything with steps, row_tiles, column_tiles, deal, clusters() and done: the kernel's arguments, or a
// test's.
namespace qshard::optimized::many_rows {

constexpr int kWarpgroups = 2;                   // that multiply
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kDequantizerWarps = 3;
constexpr int kThreads = kMultipliers + 32 + 32 * kDequantizerWarps;  // and one warp that loads
constexpr int kCluster = 2;
constexpr int kTileRows = 256;
constexpr int kGroupColumns = 64;  // of a warpgroup
constexpr int kTileColumns = kGroupColumns * kWarpgroups;
constexpr int kClusterColumns = kTileColumns * kCluster;
constexpr int kStep = 64;
constexpr int kInstructions = kStep / 16;
constexpr int kRasterRows = 8;  // tiles of rows that are made side by side, so that they share the weight in the cache

/// The output's tile of a cluster.
struct Place {
  int row;
  int column;

  template <typename Task>
  QSHARD_HOST_DEVICE Place(const Task& task, int tile) {
    const int raster = tile / (kRasterRows * task.column_tiles);
    const int first = raster * kRasterRows;
    const int rows = smaller(kRasterRows, task.row_tiles - first);
    const int rest = tile - first * task.column_tiles;
    row = (first + rest % rows) * kTileRows;
    column = rest / rows * kClusterColumns;
  }
};

constexpr int kBox = kClusterColumns;
constexpr int kBoxSteps = kBox / kStep;
constexpr int kPieceRows = 32;
constexpr int kPieces = kBox / kPieceRows;  // of a box

/// Boxes along so many steps.
QSHARD_HOST_DEVICE constexpr int boxes_of(int steps) {
  return (steps + kBoxSteps - 1) / kBoxSteps;
}

/// A box by its place in the product: the columns of the output that need it, and when, along the inner dimension.
struct WeightBox {
  int column_tile;
  int inner;

  template <typename Task>
  QSHARD_HOST_DEVICE static int inner_boxes(const Task& task) {
    return boxes_of(task.steps);
  }

  /// The count of its pieces that are dequantized.
  template <typename Task>
  [[nodiscard]] QSHARD_HOST_DEVICE unsigned* done(const Task& task) const {
    return task.done + static_cast<std::int64_t>(column_tile) * inner_boxes(task) + inner;
  }
};

/// Some steps of a tile, one after the other.
struct TilePart {
  int tile;
  int first_step;
  int steps;
  int number;  // of the tile's parts
};

/// Which work is dealt out, item by item: the first tiles, as many as fill whole waves of clusters; then the others,
/// the shared ones, which would leave some clusters without any. Where there are two clusters or more for each of them,
/// it is cut along the inner dimension into as many parts; where there is one, into a long part and a short one, and
/// the clusters that are left over take the short parts, the last ones, of some tiles each, one after the other. All
/// first parts come first, so that clusters are at as few places of the input at a time as a tile has parts. The
/// clusters that it is made for are as many as the GPU holds, however many of them run: so sums have the same order
/// beside other work, too.
struct TileDeal {
  static constexpr int kSharingSteps = 20;  // what adding up takes, in steps
  static constexpr int kLeastSteps = 16;    // of a part: of more parts the last one adds up more
  static constexpr int kLeastSaved = 16;    // a tile's steps by this: clusters are slower where none is idle

  int steps;          // of a tile
  int clusters;       // that it is made for
  int whole;          // tiles
  int shared;         // tiles, the other ones
  int parts;          // of a shared tile
  int part_boxes;     // of each part but the last one
  int last_clusters;  // that take the last parts

  TileDeal(int tiles, int tile_steps, int most_clusters)
      : steps(tile_steps),
        clusters(most_clusters),
        whole(tiles - tiles % clusters),
        shared(tiles - whole),
        parts(1),
        part_boxes(boxes()),
        last_clusters(shared) {
    if (shared > 0) cut();
    if (part_steps() + kSharingSteps + steps / kLeastSaved >= steps) {
      whole = tiles;
      shared = 0;
    }
  }

  /// Some of them have no steps.
  [[nodiscard]] QSHARD_HOST_DEVICE int items() const {
    if (shared == 0) return whole;
    return whole + (shared - 1) / last_clusters * clusters + first_last() + (shared - 1) % last_clusters + 1;
  }

  [[nodiscard]] QSHARD_HOST_DEVICE TilePart part(int item) const {
    if (item < whole) return {item, 0, steps, 0};
    const int wave = (item - whole) / clusters;
    const int place = (item - whole) % clusters;
    if (place < first_last()) {
      const int own = place / shared;
      return {whole + place % shared, own * part_steps(), wave == 0 ? part_steps() : 0, own};
    }
    const int tile = wave * last_clusters + place - first_last();
    const int begin = (parts - 1) * part_steps();
    return {whole + tile, begin, place - first_last() < last_clusters && tile < shared ? steps - begin : 0, parts - 1};
  }

  [[nodiscard]] QSHARD_HOST_DEVICE int boxes() const { return boxes_of(steps); }

  /// What so many clusters take, in times of a tile.
  [[nodiscard]] double waves() const {
    if (shared == 0) return (whole + clusters - 1) / clusters;
    return whole / clusters + static_cast<double>(part_steps() + kSharingSteps) / steps;
  }

 private:
  [[nodiscard]] QSHARD_HOST_DEVICE int part_steps() const { return part_boxes * kBoxSteps; }

  /// The cluster that the first last part is dealt to.
  [[nodiscard]] QSHARD_HOST_DEVICE int first_last() const { return (parts - 1) * shared; }

  /// Where each tile has one cluster, its first part is the shortest one for which no cluster that is left over has
  /// more to do with last parts. With more parts than two the sums would take longer than what is saved.
  void cut() {
    const int sharers = larger(1, smaller(clusters / shared, steps / kLeastSteps));
    part_boxes = (boxes() + sharers - 1) / sharers;
    const int left = clusters - shared;
    if (clusters / shared == 1 && left > 0) {
      const int most_lasts = (shared + left - 1) / left;  // of a cluster
      while (part_boxes > 1 && most_lasts * (boxes() - part_boxes + 1) < part_boxes) --part_boxes;
      last_clusters = part_boxes < boxes() ? left : shared;
    }
    parts = (boxes() + part_boxes - 1) / part_boxes;
  }
};

struct Piece {
  WeightBox box;
  int part;  // of the box
  int due;   // the step, counted over all tiles of a cluster, in which the first cluster needs it
};

/// All pieces in the order in which they are due. The clusters make their first tiles at the same time, then their
/// second ones: a wave after the other, each of which needs some tiles of columns for the first time, and of all of
/// these first the boxes of the first steps. In a wave with shared tiles these are the first boxes of each part, though
/// most of the last parts come later.
template <typename Task>
class PieceOrder {
 public:
  QSHARD_HOST_DEVICE explicit PieceOrder(const Task& task) : task_(task) { enter_wave(); }

  [[nodiscard]] QSHARD_HOST_DEVICE unsigned count() const {
    return static_cast<unsigned>(task_.column_tiles) * pieces_a_column_tile();
  }

  /// To be called with numbers that grow.
  QSHARD_HOST_DEVICE Piece at(unsigned number) {
    while (number - first_ >= column_tiles_ * pieces_a_column_tile()) {
      first_ += column_tiles_ * pieces_a_column_tile();
      ++wave_;
      enter_wave();
    }
    const unsigned box = (number - first_) / kPieces;
    const auto place = static_cast<int>(box / column_tiles_);
    const Along along = is_shared(wave_) ? along_parts(place) : Along{place, place};
    return {{static_cast<int>(first_column_tile_ + box % column_tiles_), along.box},
            static_cast<int>(number % kPieces),
            wave_ * task_.steps + along.turn * kBoxSteps};
  }

 private:
  struct Along {
    int box;   // along the inner dimension
    int turn;  // of the boxes of its part
  };

  /// The boxes of shared tiles, the first ones of all parts first.
  [[nodiscard]] QSHARD_HOST_DEVICE Along along_parts(int place) const {
    const TileDeal& deal = task_.deal;
    const int of_all = (deal.boxes() - (deal.parts - 1) * deal.part_boxes) * deal.parts;  // until the last part ends
    if (place < of_all) return {place % deal.parts * deal.part_boxes + place / deal.parts, place / deal.parts};
    const int others = deal.parts - 1;
    const int turn = of_all / deal.parts + (place - of_all) / others;
    return {(place - of_all) % others * deal.part_boxes + turn, turn};
  }

  [[nodiscard]] QSHARD_HOST_DEVICE unsigned pieces_a_column_tile() const {
    return static_cast<unsigned>(WeightBox::inner_boxes(task_)) * kPieces;
  }

  QSHARD_HOST_DEVICE void enter_wave() {
    first_column_tile_ = column_tiles_before(wave_);
    column_tiles_ = column_tiles_before(wave_ + 1) - first_column_tile_;
  }

  /// Whether the wave is the first one with shared tiles, or would come after it.
  [[nodiscard]] QSHARD_HOST_DEVICE bool is_shared(int wave) const {
    return task_.deal.shared > 0 && wave >= task_.deal.whole / task_.clusters();
  }

  /// Tiles of columns that are needed before the wave.
  [[nodiscard]] QSHARD_HOST_DEVICE unsigned column_tiles_before(int wave) const {
    if (wave > 0 && is_shared(wave - 1)) return static_cast<unsigned>(task_.column_tiles);
    const int rows = smaller(kRasterRows, task_.row_tiles);
    return static_cast<unsigned>(smaller((wave * task_.clusters() + rows - 1) / rows, task_.column_tiles));
  }

  const Task& task_;
  int wave_ = 0;
  unsigned first_ = 0;  // piece of the wave
  unsigned first_column_tile_;
  unsigned column_tiles_;  // needed for the first time
};

}  // namespace qshard::optimized::many_rows
