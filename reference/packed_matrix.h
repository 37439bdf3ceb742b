#pragma once

#include <cstdint>
#include <memory>

#include "reference/matrix.h"

namespace qshard::reference {

/// A matrix, or a block of one where it lies.
template <typename T>
using MatrixRef = Eigen::Ref<Matrix<T>, 0, Eigen::OuterStride<>>;
template <typename T>
using ConstMatrixRef = Eigen::Ref<const Matrix<T>, 0, Eigen::OuterStride<>>;

/// The right factor of a matrix product, copied once into the order in which a processor's inner loop reads it: panels
/// of as many columns as two registers hold, one after another for each block of rows. Many tasks then multiply their
/// own rows of the left factor with it.
template <typename T>
class PackedMatrix {
 public:
  /// Packs w, or w^T.
  explicit PackedMatrix(const ConstMatrixRef<T>& w, bool transposed);

  [[nodiscard]] std::int64_t rows() const { return rows_; }
  [[nodiscard]] std::int64_t columns() const { return columns_; }

  /// columns() filled up to whole panels. A y below with as many takes less time; what is beyond columns() counts as 0
  /// in w.
  [[nodiscard]] std::int64_t whole_columns() const;

  /// y = x w for some rows of x and of y. Every element is summed in the order of the rows of w, one fused multiply-add
  /// each, from 0 on.
  void multiply(const ConstMatrixRef<T>& x, MatrixRef<T> y) const;

  /// y += x w: the sum goes on from the value of y.
  void add_product(const ConstMatrixRef<T>& x, MatrixRef<T> y) const;

  /// y += x^T w, in the same way.
  void add_transposed_product(const ConstMatrixRef<T>& x, MatrixRef<T> y) const;

 private:
  /// y = x w, or y += x w, for `count` rows; x(row, k) lies at x[row * row_step + k * step].
  void sum_rows(const T* x, std::int64_t row_step, std::int64_t step, std::int64_t count, bool onto,
                MatrixRef<T>& y) const;

  std::int64_t rows_;
  std::int64_t columns_;
  std::unique_ptr<T[]> values_;  // [blocks of rows][panels][rows of the block][columns of a panel], filled up with 0
};

}  // namespace qshard::reference
