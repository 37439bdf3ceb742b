#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/tensor/codebook.h"
#include "optimized/host_device.h"

namespace qshard::optimized {

/// Counts the thresholds below a scaled element with two table look-ups and one comparison instead of a search: NF4's
/// code; for FP4 see fp4_codes(). The range of scaled values is cut into 31 cells, narrow enough that none holds two
/// thresholds; a cell's row says how many thresholds lie below the cell and which one, if any, lies in it. Since the
/// cell never sinks when its value grows, a value in a higher cell than a threshold is above it: the result is exact
/// whatever row_offset() rounds.
struct IntervalTable {
  static constexpr int kCells = 32;  // one word for each memory bank; the last cell is NaN's

  float threshold[kCells];
  std::uint32_t below[kCells];  // thresholds below the cell

  /// Byte offset of the row of `x`: NF4, x in [-1, 1]; FP4, |x|. Adding 1.5 * 2^23 leaves the rounded sum in the low
  /// mantissa bits, four units a cell, so that the mask gives the row's offset at once. NaN has all these bits set.
  template <bool kNf4>
  __host__ __device__ static std::uint32_t row_offset(float x) {
    constexpr float kToInteger = 12582912.0F;
    const float position = kNf4 ? std::fma(x, 60.0F, kToInteger + 60.0F) : std::fma(std::fabs(x), 120.0F, kToInteger);
#ifdef __CUDA_ARCH__
    return __float_as_uint(position) & 0x7CU;
#else
    return std::bit_cast<std::uint32_t>(position) & 0x7CU;
#endif
  }

  template <bool kNf4>
  static IntervalTable make() {
    constexpr int kThresholds = kNf4 ? 15 : 7;
    IntervalTable table{};
    for (int cell = 0; cell < kCells; ++cell) {
      std::uint32_t below = 0;
      float inside = std::numeric_limits<float>::infinity();
      for (int i = 0; i < kThresholds; ++i) {
        const float threshold = kNf4 ? kNf4Thresholds[i] : kFp4Thresholds[i];
        const int its_cell = static_cast<int>(row_offset<kNf4>(threshold) / sizeof(float));
        if (its_cell < cell) ++below;
        if (its_cell == cell) inside = threshold;
      }
      if (cell == kCells - 1) below = 0;  // NaN compares false everywhere
      table.threshold[cell] = inside;
      table.below[cell] = below;
    }
    return table;
  }
};

/// Eight FP4 codes, where each nibble of `counts` has the number of thresholds below the magnitude in bits 0 to 2 and
/// the sign in bit 3, which stays: kFp4Order, which is 0, 1, 6, 7, 4, 5, 2, 3.
QSHARD_HOST_DEVICE constexpr std::uint32_t fp4_codes(std::uint32_t counts) {
  return counts ^ (counts & 0x22222222U) << 1;
}

static_assert([] {
  for (std::uint32_t count = 0; count < kFp4Order.size(); ++count) {
    if (fp4_codes(count) != kFp4Order[count]) return false;
  }
  return true;
}());

}  // namespace qshard::optimized
