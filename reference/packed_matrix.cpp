#include "reference/packed_matrix.h"

#include <algorithm>

#include "reference/parallel.h"

namespace qshard::reference {
namespace {

template <typename T>
using Packet = typename Eigen::internal::packet_traits<T>::type;  // a register

template <typename T>
constexpr std::int64_t kLanes = Eigen::internal::unpacket_traits<Packet<T>>::size;
template <typename T>
constexpr std::int64_t kPanelColumns = 2 * kLanes<T>;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // a register's alignment is no part of a template's argument
template <typename T>
using Square = Eigen::internal::PacketBlock<Packet<T>, static_cast<int>(kLanes<T>)>;  // as many as they have lanes
#pragma GCC diagnostic pop

constexpr std::int64_t kBlockRows = 256;  // a panel of a block fits into the first cache
constexpr int kTileRows = 6;              // 12 sums, two values of w and one of x in 16 registers

/// Rows x panel columns of y += (or =, where `first`) x times a panel of `depth` rows. x has rows of length x_stride.
template <typename T, int Rows>
void multiply_tile(const T* x, std::int64_t x_stride, const T* panel, std::int64_t depth, bool first, T* y,
                   std::int64_t y_stride) {
  using namespace Eigen::internal;
  Packet<T> sums[Rows][2];
  for (int row = 0; row < Rows; ++row) {
    for (int half = 0; half < 2; ++half) {
      sums[row][half] = first ? pset1<Packet<T>>(T(0)) : ploadu<Packet<T>>(y + row * y_stride + half * kLanes<T>);
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const auto left = ploadu<Packet<T>>(panel + k * kPanelColumns<T>);
    const auto right = ploadu<Packet<T>>(panel + k * kPanelColumns<T> + kLanes<T>);
    for (int row = 0; row < Rows; ++row) {
      const auto factor = pset1<Packet<T>>(x[row * x_stride + k]);
      sums[row][0] = pmadd(factor, left, sums[row][0]);
      sums[row][1] = pmadd(factor, right, sums[row][1]);
    }
  }
  for (int row = 0; row < Rows; ++row) {
    for (int half = 0; half < 2; ++half) pstoreu(y + row * y_stride + half * kLanes<T>, sums[row][half]);
  }
}

/// The same where y has only `columns` columns of the panel.
template <typename T, int Rows>
void multiply_narrow_tile(const T* x, std::int64_t x_stride, const T* panel, std::int64_t depth, bool first, T* y,
                          std::int64_t y_stride, std::int64_t columns) {
  if (columns >= kPanelColumns<T>) {
    multiply_tile<T, Rows>(x, x_stride, panel, depth, first, y, y_stride);
    return;
  }
  T whole[Rows * kPanelColumns<T>] = {};
  for (int row = 0; row < Rows && !first; ++row)
    std::copy_n(y + row * y_stride, columns, whole + row * kPanelColumns<T>);
  multiply_tile<T, Rows>(x, x_stride, panel, depth, first, whole, kPanelColumns<T>);
  for (int row = 0; row < Rows; ++row) std::copy_n(whole + row * kPanelColumns<T>, columns, y + row * y_stride);
}

/// A panel from `depth` rows of w, of which it gets `columns` values each.
template <typename T>
void pack(const T* w, std::int64_t stride, std::int64_t depth, std::int64_t columns, T* panel) {
  for (std::int64_t row = 0; row < depth; ++row, panel += kPanelColumns<T>) {
    if (columns == kPanelColumns<T>) {
      std::copy_n(w + row * stride, kPanelColumns<T>, panel);
    } else {
      std::fill_n(std::copy_n(w + row * stride, columns, panel), kPanelColumns<T> - columns, T(0));
    }
  }
}

/// A panel whose columns are `columns` rows of w, `depth` values of each.
template <typename T>
void pack_transposed(const T* w, std::int64_t stride, std::int64_t depth, std::int64_t columns, T* panel) {
  std::int64_t row = 0;
  for (; columns == kPanelColumns<T> && row + kLanes<T> <= depth; row += kLanes<T>) {
    for (std::int64_t column = 0; column < columns; column += kLanes<T>) {
      Square<T> square;
      for (int i = 0; i < kLanes<T>; ++i) {
        square.packet[i] = Eigen::internal::ploadu<Packet<T>>(w + (column + i) * stride + row);
      }
      Eigen::internal::ptranspose(square);
      for (int i = 0; i < kLanes<T>; ++i) {
        Eigen::internal::pstoreu(panel + (row + i) * kPanelColumns<T> + column, square.packet[i]);
      }
    }
  }
  for (; row < depth; ++row) {
    for (std::int64_t column = 0; column < kPanelColumns<T>; ++column) {
      panel[row * kPanelColumns<T> + column] = column < columns ? w[column * stride + row] : T(0);
    }
  }
}

}  // namespace

template <typename T>
PackedMatrix<T>::PackedMatrix(const Matrix<T>& w, bool transposed)
    : rows_(transposed ? w.cols() : w.rows()), columns_(transposed ? w.rows() : w.cols()) {
  const std::int64_t panels = (columns_ + kPanelColumns<T> - 1) / kPanelColumns<T>;
  values_ = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(rows_ * panels * kPanelColumns<T>));
  parallel_for(panels, 1, [&](std::int64_t panel, std::int64_t) {
    const std::int64_t column = panel * kPanelColumns<T>;
    const std::int64_t columns = std::min(kPanelColumns<T>, columns_ - column);
    for (std::int64_t row = 0; row < rows_; row += kBlockRows) {
      const std::int64_t depth = std::min(kBlockRows, rows_ - row);
      T* packed = values_.get() + (row * panels + panel * depth) * kPanelColumns<T>;
      if (transposed) {
        pack_transposed(&w(column, row), rows_, depth, columns, packed);
      } else {
        pack(&w(row, column), columns_, depth, columns, packed);
      }
    }
  });
}

template <typename T>
void PackedMatrix<T>::multiply(const T* x, std::int64_t count, T* y) const {
  if (rows_ == 0) std::fill_n(y, count * columns_, T(0));
  for (std::int64_t row = 0; row < rows_; row += kBlockRows) {
    const std::int64_t depth = std::min(kBlockRows, rows_ - row);
    const T* panel = values_.get() + row * ((columns_ + kPanelColumns<T> - 1) / kPanelColumns<T>)*kPanelColumns<T>;
    for (std::int64_t column = 0; column < columns_; column += kPanelColumns<T>, panel += depth * kPanelColumns<T>) {
      std::int64_t token = 0;
      for (; token + kTileRows <= count; token += kTileRows) {
        multiply_narrow_tile<T, kTileRows>(x + token * rows_ + row, rows_, panel, depth, row == 0,
                                           y + token * columns_ + column, columns_, columns_ - column);
      }
      for (; token < count; ++token) {
        multiply_narrow_tile<T, 1>(x + token * rows_ + row, rows_, panel, depth, row == 0,
                                   y + token * columns_ + column, columns_, columns_ - column);
      }
    }
  }
}

template class PackedMatrix<float>;
template class PackedMatrix<double>;

}  // namespace qshard::reference
