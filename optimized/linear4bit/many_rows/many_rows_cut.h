#pragma once

#include <cstdint>

#include "optimized/host_device.h"
#include "optimized/linear4bit/work_split.h"

// How many_rows.cu cuts a product out = in op(W): the forward one, whose output columns are the weight's rows,
// and the gradient, whose output columns are the weight's columns. A thread block makes tiles of 256 rows by 128
// columns of the output, in steps of 64 along the inner dimension, each one stage of shared memory. Two thread blocks,
// a cluster, make neighbouring tiles of the same rows at the same time and load `in` for both. Besides, some warps of
// each thread block dequantize the weight to device memory, just ahead of the copies that read it there. Tiles that
// would leave many clusters idle in the last wave are shared.
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

/// A box by its place in the product: the columns of the output that need it, and when, along the inner dimension.
struct WeightBox {
  int column_tile;
  int inner;

  template <typename Task>
  QSHARD_HOST_DEVICE static int inner_boxes(const Task& task) {
    return (task.steps + kBoxSteps - 1) / kBoxSteps;
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
  int sharer;
};

/// Which work is dealt out, item by item: the first tiles, as many as fill whole waves of clusters; then the others,
/// which would leave half of the clusters or more without any. Each of these is shared by as many clusters as there are
/// for it, of which each takes some boxes along the inner dimension: first all first sharers' parts, so that clusters
/// are at as few places of the input at a time as a tile has sharers. The clusters that it is made for are as many as
/// the GPU holds, however many of them run: so sums have the same order beside other work, too.
struct TileDeal {
  static constexpr int kSharingSteps = 20;  // what adding up takes, in steps
  static constexpr int kLeastSteps = 16;    // of a sharer: of more sharers the last one adds up more

  int steps;        // of a tile
  int whole;        // tiles
  int shared;       // tiles, the other ones
  WorkSplit boxes;  // of a shared tile

  TileDeal(int tiles, int tile_steps, int clusters)
      : steps(tile_steps),
        whole(tiles - tiles % clusters),
        shared(tiles - whole),
        boxes(1, (steps + kBoxSteps - 1) / kBoxSteps,
              larger(1, smaller(clusters / larger(1, shared), steps / kLeastSteps))) {
    if (boxes.begin(1) * kBoxSteps + kSharingSteps >= steps) {
      whole = tiles;
      shared = 0;
    }
  }

  [[nodiscard]] QSHARD_HOST_DEVICE int sharers() const { return boxes.workers; }
  [[nodiscard]] QSHARD_HOST_DEVICE int items() const { return whole + shared * sharers(); }

  [[nodiscard]] QSHARD_HOST_DEVICE TilePart part(int item) const {
    if (item < whole) return {item, 0, steps, 0};
    const int sharer = (item - whole) / shared;
    const int begin = boxes.begin(sharer) * kBoxSteps;
    const int end = smaller(boxes.begin(sharer + 1) * kBoxSteps, steps);
    return {item - sharer * shared, begin, end - begin, sharer};
  }

  /// What so many clusters take, in times of a tile.
  [[nodiscard]] double waves(int clusters) const {
    if (shared == 0) return (whole + clusters - 1) / clusters;
    return whole / clusters + static_cast<double>(boxes.begin(1) * kBoxSteps + kSharingSteps) / steps;
  }
};

struct Piece {
  WeightBox box;
  int part;  // of the box
  int due;   // the step, counted over all tiles of a cluster, in which the first cluster needs it
};

/// All pieces in the order in which they are due. The clusters make their first tiles at the same time, then their
/// second ones: a wave after the other, each of which needs some tiles of columns for the first time, and of all of
/// these first the boxes of the first steps. In a wave with shared tiles these are the first boxes of each sharer.
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
    const WorkSplit& boxes = task_.deal.boxes;
    const int turn = is_shared(wave_) ? place / boxes.workers : place;
    const int inner = is_shared(wave_) ? boxes.begin(place % boxes.workers) + turn : place;
    return {{static_cast<int>(first_column_tile_ + box % column_tiles_), inner},
            static_cast<int>(number % kPieces),
            wave_ * task_.steps + turn * kBoxSteps};
  }

 private:
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
