#pragma once

#include <cstdint>
#include <memory>

#include "reference/matrix.h"

namespace qshard::reference {

/// The right factor of a matrix product, copied once into the order in which a processor's inner loop reads it: panels
/// of as many columns as two registers hold, one after another for each block of rows. Many tasks then multiply their
/// own rows of the left factor with it.
template <typename T>
class PackedMatrix {
 public:
  /// Packs w, or w^T.
  explicit PackedMatrix(const Matrix<T>& w, bool transposed);

  [[nodiscard]] std::int64_t rows() const { return rows_; }
  [[nodiscard]] std::int64_t columns() const { return columns_; }

  /// y = x w for `count` rows of x, whose length is rows(), and of y, whose length is columns(). Both lie without gaps.
  /// Every element is summed in the order of the rows of w, one fused multiply-add each.
  void multiply(const T* x, std::int64_t count, T* y) const;

 private:
  std::int64_t rows_;
  std::int64_t columns_;
  std::unique_ptr<T[]> values_;  // [blocks of rows][panels][rows of the block][columns of a panel], filled up with 0
};

}  // namespace qshard::reference
