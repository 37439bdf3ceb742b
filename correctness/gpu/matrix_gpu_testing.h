#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "core/tensor/dtype.h"
#include "core/tensor/tensor.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/matrix_testing.h"
#include "optimized/token_rows.h"
#include "reference/matrix.h"

namespace qshard::test {

using reference::Matrix;
using reference::random_batch;
using reference::random_matrix;

inline constexpr DType kFloatingDTypes[] = {DType::f32, DType::bf16, DType::f16};

/// Half a unit in the last place of `dtype`, relative: the largest error of one rounding of a normal number.
inline double unit_of(DType dtype) {
  if (dtype == DType::f32) return 0x1p-24;
  return dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
}

/// The distance of neighbouring subnormal numbers of `dtype`.
inline double least_of(DType dtype) {
  if (dtype == DType::f32) return 0x1p-149;
  return dtype == DType::bf16 ? 0x1p-133 : 0x1p-24;
}

/// Standard normal elements times `deviation`, rounded to `dtype`.
inline Matrix<float> random_rounded(std::int64_t rows, std::int64_t cols, DType dtype, std::uint64_t seed,
                                    float deviation = 1.0F) {
  Matrix<float> values = deviation * random_matrix<float>(rows, cols, seed);
  reference::round_to(dtype, values);
  return values;
}

/// The same, `count` of them.
inline std::vector<float> random_vector(std::int64_t count, DType dtype, std::uint64_t seed, float deviation) {
  const Matrix<float> values = random_rounded(1, count, dtype, seed, deviation);
  return {values.data(), values.data() + values.size()};
}

/// A matrix of `dtype` in device memory: rows `stride` elements apart, the first one `first` elements after an aligned
/// address. Whatever is not set is NaN, between the rows too.
class DeviceMatrix {
 public:
  DeviceMatrix(std::int64_t rows, std::int64_t cols, DType dtype, std::int64_t stride, std::int64_t first = 0)
      : rows_(rows),
        cols_(cols),
        dtype_(dtype),
        stride_(stride),
        first_(first),
        memory_(std::vector<std::uint8_t>((first + rows * stride) * size_of(dtype), 0xFF)) {}

  DeviceMatrix(const Matrix<float>& values, DType dtype, std::int64_t stride, std::int64_t first = 0)
      : DeviceMatrix(values.rows(), values.cols(), dtype, stride, first) {
    const Tensor rounded =
        from_floats({values.data(), static_cast<std::size_t>(values.size())}, dtype, {values.rows(), values.cols()});
    const std::size_t row_bytes = static_cast<std::size_t>(cols_) * size_of(dtype);
    QSHARD_CUDA_CHECK(cudaMemcpy2D(data(), stride * size_of(dtype), rounded.bytes().data(), row_bytes, row_bytes, rows_,
                                   cudaMemcpyHostToDevice));
  }

  [[nodiscard]] void* data() const { return memory_.as<std::byte>(first_ * size_of(dtype_)); }
  [[nodiscard]] std::int64_t stride() const { return stride_; }
  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] std::vector<std::uint8_t> bytes() const { return memory_.download<std::uint8_t>(); }

  /// The elements; fails the test where anything between the rows was written.
  [[nodiscard]] Matrix<float> values() const {
    const std::vector<std::uint8_t> all = bytes();
    const std::size_t itemsize = size_of(dtype_);
    const std::size_t row_bytes = cols_ * itemsize;
    std::vector<bool> ours(all.size(), false);
    Matrix<float> result(rows_, cols_);
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::size_t begin = (first_ + row * stride_) * itemsize;
      std::fill_n(ours.begin() + begin, row_bytes, true);
      const TensorView view{dtype_, {cols_}, std::as_bytes(std::span(all)).subspan(begin, row_bytes)};
      const std::vector<float> row_values = to_floats(view);
      std::copy(row_values.begin(), row_values.end(), result.row(row).data());
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!ours[i] && all[i] != 0xFF) {
        ADD_FAILURE() << "byte " << i << ", which belongs to no row, was written";
        break;
      }
    }
    return result;
  }

 private:
  std::int64_t rows_, cols_;
  DType dtype_;
  std::int64_t stride_, first_;
  DeviceBuffer memory_;
};

/// A batch's TokenRows in device memory, targets included.
class DeviceRows {
 public:
  explicit DeviceRows(const TokenBatch& batch) : DeviceRows(batch, Host(batch)) {}

  [[nodiscard]] optimized::TokenRows view() const {
    return {ids_.as<std::int32_t>(),
            targets_.as<std::int32_t>(),
            positions_.as<std::int32_t>(),
            offsets_.as<std::int32_t>(),
            row_ids_.as<std::uint32_t>(),
            tokens_,
            rows_,
            longest_,
            row_of_.as<std::int32_t>()};
  }

 private:
  struct Host {
    std::vector<std::int32_t> targets, positions, offsets, row_of;
    std::vector<std::uint32_t> row_ids;
    std::int32_t longest = 0;

    explicit Host(const TokenBatch& batch) {
      for (std::int64_t row = 0; row < batch.rows(); ++row) {
        const std::int64_t begin = batch.offsets[row];
        const std::int64_t end = batch.offsets[row + 1];
        for (std::int64_t token = begin; token < end; ++token) {
          targets.push_back(token + 1 < end ? batch.labels[token + 1] : kIgnoredLabel);
          positions.push_back(static_cast<std::int32_t>(token - begin));
          row_of.push_back(static_cast<std::int32_t>(row));
        }
        row_ids.push_back(static_cast<std::uint32_t>(batch.row_ids[row]));
        longest = std::max(longest, static_cast<std::int32_t>(end - begin));
      }
      offsets.assign(batch.offsets.begin(), batch.offsets.end());
    }
  };

  DeviceRows(const TokenBatch& batch, const Host& host)
      : ids_(batch.input_ids),
        targets_(host.targets),
        positions_(host.positions),
        offsets_(host.offsets),
        row_of_(host.row_of),
        row_ids_(host.row_ids),
        tokens_(static_cast<std::int32_t>(batch.tokens())),
        rows_(static_cast<std::int32_t>(batch.rows())),
        longest_(host.longest) {}

  DeviceBuffer ids_, targets_, positions_, offsets_, row_of_, row_ids_;
  std::int32_t tokens_, rows_, longest_;
};

/// Every element has the expected bits; two NaN count as equal.
inline void expect_bits(const Matrix<float>& expected, const Matrix<float>& found, const char* what) {
  ASSERT_EQ(expected.size(), found.size()) << what;
  std::int64_t wrong = 0;
  Eigen::Index first = -1;
  for (Eigen::Index i = 0; i < expected.size(); ++i) {
    const float a = expected.data()[i];
    const float b = found.data()[i];
    if (std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b)))
      continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return;
  ADD_FAILURE() << fmt::format("{}: {} of {} elements differ; the first, {} of row {}, is {} instead of {}", what,
                               wrong, expected.size(), first % expected.cols(), first / expected.cols(),
                               found.data()[first], expected.data()[first]);
}

/// |found - expected| <= bound(row, column) for every element, or the two are equal (infinities); NaN fails.
template <typename Bound>
void expect_within(const Matrix<double>& expected, const Matrix<float>& found, const Bound& bound, const char* what) {
  ASSERT_EQ(expected.size(), found.size()) << what;
  double worst = 0;
  std::int64_t wrong = 0;
  std::string first;
  for (Eigen::Index row = 0; row < expected.rows(); ++row) {
    for (Eigen::Index col = 0; col < expected.cols(); ++col) {
      const double a = expected(row, col);
      const double b = found(row, col);
      if (a == b) continue;
      const double share = std::abs(a - b) / bound(row, col);
      if (share <= 1) {
        worst = std::max(worst, share);
      } else if (wrong++ == 0) {
        first = fmt::format("element {} of row {} is {} instead of {}, bound {}", col, row, b, a, bound(row, col));
      }
    }
  }
  EXPECT_EQ(wrong, 0) << what << ": " << first;
  testing::Test::RecordProperty(fmt::format("{}_worst_share_of_bound", what), fmt::format("{:.3g}", worst));
}

/// Elements of two matrices that differ.
inline double differing_share(const Matrix<double>& expected, const Matrix<float>& found) {
  const auto different = (expected.array() != found.cast<double>().array()).count();
  return static_cast<double>(different) / static_cast<double>(expected.size());
}

}  // namespace qshard::test
