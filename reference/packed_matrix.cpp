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

constexpr std::int64_t kBlockRows = 256;           // a panel of a block fits into the first cache
constexpr std::int64_t kPackedElements = 1 << 14;  // what a thread packs at once
constexpr std::int64_t kTileRows = 6;              // 12 sums, two values of w and one of x in 16 registers

/// A left factor whose element (row, k) lies at data[row * row_step + k * step].
template <typename T>
struct Left {
  const T* data;
  std::int64_t row_step;
  std::int64_t step;
};

/// The panel's columns of `count` rows of y = x times a panel of `depth` rows, or, where `onto`, y += that: in tiles of
/// `Rows` rows, the rest in smaller ones.
template <int Rows, typename T>
void multiply_panel(Left<T> x, const T* panel, std::int64_t depth, bool onto, T* y, std::int64_t y_stride,
                    std::int64_t count) {
  using namespace Eigen::internal;
  for (; count >= Rows; count -= Rows, x.data += Rows * x.row_step, y += Rows * y_stride) {
    Packet<T> sums[Rows][2];
    for (int row = 0; row < Rows; ++row) {
      for (int half = 0; half < 2; ++half) {
        sums[row][half] = onto ? ploadu<Packet<T>>(y + row * y_stride + half * kLanes<T>) : pset1<Packet<T>>(T(0));
      }
    }
    for (std::int64_t k = 0; k < depth; ++k) {
      const auto left = ploadu<Packet<T>>(panel + k * kPanelColumns<T>);
      const auto right = ploadu<Packet<T>>(panel + k * kPanelColumns<T> + kLanes<T>);
      for (int row = 0; row < Rows; ++row) {
        const auto factor = pset1<Packet<T>>(x.data[row * x.row_step + k * x.step]);
        sums[row][0] = pmadd(factor, left, sums[row][0]);
        sums[row][1] = pmadd(factor, right, sums[row][1]);
      }
    }
    for (int row = 0; row < Rows; ++row) {
      for (int half = 0; half < 2; ++half) pstoreu(y + row * y_stride + half * kLanes<T>, sums[row][half]);
    }
  }
  if constexpr (Rows > 1) multiply_panel<Rows / 2>(x, panel, depth, onto, y, y_stride, count);
}

/// The same where y has only `columns` columns of the panel.
template <typename T>
void multiply_narrow_panel(Left<T> x, const T* panel, std::int64_t depth, bool onto, T* y, std::int64_t y_stride,
                           std::int64_t columns, std::int64_t count) {
  for (; count > 0; count -= kTileRows, x.data += kTileRows * x.row_step, y += kTileRows * y_stride) {
    const std::int64_t rows = std::min(kTileRows, count);
    T whole[kTileRows * kPanelColumns<T>] = {};
    for (std::int64_t row = 0; row < rows && onto; ++row) {
      std::copy_n(y + row * y_stride, columns, whole + row * kPanelColumns<T>);
    }
    multiply_panel<kTileRows>(x, panel, depth, onto, whole, kPanelColumns<T>, rows);
    for (std::int64_t row = 0; row < rows; ++row) {
      std::copy_n(whole + row * kPanelColumns<T>, columns, y + row * y_stride);
    }
  }
}

/// A panel from `depth` rows of w, of which it gets `columns` values each.
template <typename T>
void pack(const T* w, std::int64_t stride, std::int64_t depth, std::int64_t columns, T* panel) {
  using namespace Eigen::internal;
  for (std::int64_t row = 0; row < depth; ++row, w += stride, panel += kPanelColumns<T>) {
    if (columns == kPanelColumns<T>) {
      for (int half = 0; half < 2; ++half) pstoreu(panel + half * kLanes<T>, ploadu<Packet<T>>(w + half * kLanes<T>));
    } else {
      std::fill_n(std::copy_n(w, columns, panel), kPanelColumns<T> - columns, T(0));
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
PackedMatrix<T>::PackedMatrix(const ConstMatrixRef<T>& w, bool transposed)
    : rows_(transposed ? w.cols() : w.rows()), columns_(transposed ? w.rows() : w.cols()) {
  const std::int64_t panels = whole_columns() / kPanelColumns<T>;
  const std::int64_t grain =
      std::max<std::int64_t>(1, kPackedElements / (std::max<std::int64_t>(1, rows_) * kPanelColumns<T>));
  values_ = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(rows_ * panels * kPanelColumns<T>));
  parallel_for(panels, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t column = panel * kPanelColumns<T>;
      const std::int64_t columns = std::min(kPanelColumns<T>, columns_ - column);
      for (std::int64_t row = 0; row < rows_; row += kBlockRows) {
        const std::int64_t depth = std::min(kBlockRows, rows_ - row);
        T* packed = values_.get() + (row * panels + panel * depth) * kPanelColumns<T>;
        if (transposed) {
          pack_transposed(w.data() + column * w.outerStride() + row, w.outerStride(), depth, columns, packed);
        } else {
          pack(w.data() + row * w.outerStride() + column, w.outerStride(), depth, columns, packed);
        }
      }
    }
  });
}

template <typename T>
std::int64_t PackedMatrix<T>::whole_columns() const {
  return (columns_ + kPanelColumns<T> - 1) / kPanelColumns<T> * kPanelColumns<T>;
}

template <typename T>
void PackedMatrix<T>::sum_rows(const T* x, std::int64_t row_step, std::int64_t step, std::int64_t count, bool onto,
                               MatrixRef<T>& y) const {
  if (count == 0) return;
  if (rows_ == 0 && !onto) y.setZero();
  const T* panel = values_.get();
  for (std::int64_t row = 0; row < rows_; row += kBlockRows) {
    const std::int64_t depth = std::min(kBlockRows, rows_ - row);
    for (std::int64_t column = 0; column < columns_; column += kPanelColumns<T>, panel += depth * kPanelColumns<T>) {
      const Left<T> left{x + row * step, row_step, step};
      if (y.cols() - column >= kPanelColumns<T>) {
        multiply_panel<kTileRows>(left, panel, depth, onto || row > 0, y.data() + column, y.outerStride(), count);
      } else {
        multiply_narrow_panel(left, panel, depth, onto || row > 0, y.data() + column, y.outerStride(),
                              columns_ - column, count);
      }
    }
  }
}

template <typename T>
void PackedMatrix<T>::multiply(const ConstMatrixRef<T>& x, MatrixRef<T> y) const {
  sum_rows(x.data(), x.outerStride(), 1, x.rows(), false, y);
}

template <typename T>
void PackedMatrix<T>::add_product(const ConstMatrixRef<T>& x, MatrixRef<T> y) const {
  sum_rows(x.data(), x.outerStride(), 1, x.rows(), true, y);
}

template <typename T>
void PackedMatrix<T>::add_transposed_product(const ConstMatrixRef<T>& x, MatrixRef<T> y) const {
  sum_rows(x.data(), 1, x.outerStride(), x.cols(), true, y);
}

template class PackedMatrix<float>;
template class PackedMatrix<double>;

}  // namespace qshard::reference
