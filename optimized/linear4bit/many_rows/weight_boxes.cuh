#pragma once

#include <cstdint>

#include "optimized/linear4bit/many_rows/many_rows_tiles.cuh"

// In which order linear4bit_many.cu dequantizes the weight. A box of 256 by 256 elements is what a cluster needs for
// kBoxSteps steps; it is dequantized in pieces of some of the weight's rows, by one warp each.
namespace qshard::optimized {

constexpr int kBox = kClusterColumns;
constexpr int kBoxSteps = kBox / kStep;
constexpr int kPieceRows = 32;
constexpr int kPieces = kBox / kPieceRows;  // of a box

/// A box by its place in the product: the columns of the output that need it, and when, along the inner dimension.
struct WeightBox {
  int column_tile;
  int inner;

  __device__ __forceinline__ static int inner_boxes(const ManyRowsTask& task) {
    return (task.steps + kBoxSteps - 1) / kBoxSteps;
  }

  /// The count of its pieces that are dequantized.
  __device__ __forceinline__ unsigned* done(const ManyRowsTask& task) const {
    return task.done + static_cast<std::int64_t>(column_tile) * inner_boxes(task) + inner;
  }
};

struct Piece {
  WeightBox box;
  int part;  // of the box
  int due;   // the step, counted over all tiles of a cluster, in which the first cluster needs it
};

/// All pieces in the order in which they are due. The clusters make their first tiles at the same time, then their
/// second ones: a wave after the other, each of which needs some tiles of columns for the first time, and of all of
/// these first the boxes of the first steps.
class PieceOrder {
 public:
  __device__ __forceinline__ explicit PieceOrder(const ManyRowsTask& task) : task_(task) { enter_wave(); }

  [[nodiscard]] __device__ __forceinline__ unsigned count() const {
    return static_cast<unsigned>(task_.column_tiles) * pieces_a_column_tile();
  }

  /// To be called with numbers that grow.
  __device__ __forceinline__ Piece at(unsigned number) {
    while (number - first_ >= column_tiles_ * pieces_a_column_tile()) {
      first_ += column_tiles_ * pieces_a_column_tile();
      ++wave_;
      enter_wave();
    }
    const unsigned box = (number - first_) / kPieces;
    const auto inner = static_cast<int>(box / column_tiles_);
    return {{static_cast<int>(first_column_tile_ + box % column_tiles_), inner},
            static_cast<int>(number % kPieces),
            wave_ * task_.steps + inner * kBoxSteps};
  }

 private:
  [[nodiscard]] __device__ __forceinline__ unsigned pieces_a_column_tile() const {
    return static_cast<unsigned>(WeightBox::inner_boxes(task_)) * kPieces;
  }

  __device__ __forceinline__ void enter_wave() {
    first_column_tile_ = column_tiles_before(wave_);
    column_tiles_ = column_tiles_before(wave_ + 1) - first_column_tile_;
  }

  /// Tiles of columns that are needed before the wave.
  [[nodiscard]] __device__ __forceinline__ unsigned column_tiles_before(int wave) const {
    const int rows = min(kRasterRows, task_.row_tiles);
    return static_cast<unsigned>(min((wave * task_.clusters() + rows - 1) / rows, task_.column_tiles));
  }

  const ManyRowsTask& task_;
  int wave_ = 0;
  unsigned first_ = 0;  // piece of the wave
  unsigned first_column_tile_;
  unsigned column_tiles_;  // needed for the first time
};

}  // namespace qshard::optimized
