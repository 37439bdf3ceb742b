#pragma once

#include "optimized/dequantize_slice.h"
#include "optimized/dequantize_warp.cuh"

namespace qshard::optimized {

constexpr int kPieceChunks = 4;
constexpr int kPieceElements = kPieceChunks * kChunkElements<__nv_bfloat16>;  // what a warp rebuilds at once

/// Where a slice begins and how its rows lie in the weight, for kernels that cut the rows into pieces.
struct SliceLayout {
  std::int64_t first;
  std::int64_t row_elements;
  std::int64_t rows;
  std::int64_t columns;

  /// Whole rows are one long row, so that fewer pieces end early.
  explicit SliceLayout(const WeightSlice& slice)
      : first(slice.first_row * slice.row_elements + slice.first_column),
        row_elements(slice.row_elements),
        rows(slice.rows),
        columns(slice.columns) {
    if (columns != row_elements) return;
    columns *= rows;
    rows = 1;
  }

  /// Pieces a row is cut into, the last one perhaps shorter.
  [[nodiscard]] __host__ __device__ std::int64_t pieces_a_row() const {
    return (columns + kPieceElements - 1) / kPieceElements;
  }

  [[nodiscard]] __device__ std::int64_t element(std::int64_t row, std::int64_t column) const {
    return first + row * row_elements + column;
  }
};

}  // namespace qshard::optimized
