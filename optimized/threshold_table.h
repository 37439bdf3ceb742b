#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/tensor/codebook.h"
#include "optimized/host_device.h"

namespace qshard::optimized {

QSHARD_HOST_DEVICE std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/// Counts the thresholds below a scaled element with two table look-ups and one comparison instead of a search: NF4's
/// code; for FP4 see fp4_codes(). The range of scaled values is cut into 31 cells, narrow enough that none holds two
/// thresholds; a cell's row says how many thresholds lie below the cell and which one, if any, lies in it. Since the
/// cell never sinks when its value grows, a value in a higher cell than a threshold is above it: the result is exact
/// whatever cell_bits() rounds.
struct ThresholdTable {
  static constexpr int kCells = 32;  // one for each lane of a warp; the last cell is NaN's

  float threshold[kCells];
  std::uint32_t below[kCells];  // thresholds below the cell, in the four highest bits

  /// Cells a unit, and the cell of 0.
  template <bool kNf4>
  static constexpr float kDensity = kNf4 ? 15.0F : 30.0F;
  template <bool kNf4>
  static constexpr float kZeroCell = kNf4 ? 15.0F : 0.0F;

  /// The cell of `x` in the five lowest bits, others in those above. NF4: x in [-1, 1]; FP4: |x|. Adding 1.5 * 2^23
  /// leaves the sum, rounded to an integer, in the low mantissa bits. A GPU's NaN has all these bits set.
  template <bool kNf4>
  QSHARD_HOST_DEVICE static std::uint32_t cell_bits(float x) {
    constexpr float kToInteger = 12582912.0F;
    return bits_of(std::fma(kNf4 ? x : std::fabs(x), kDensity<kNf4>, kToInteger + kZeroCell<kNf4>));
  }

  /// The same of a threshold, none of which lies halfway between two integers.
  template <bool kNf4>
  static constexpr int cell_of(float threshold) {
    return static_cast<int>(double{threshold} * kDensity<kNf4> + kZeroCell<kNf4> + 0.5);
  }

  template <bool kNf4>
  static constexpr ThresholdTable make() {
    constexpr int kThresholds = kNf4 ? 15 : 7;
    ThresholdTable table{};
    for (int cell = 0; cell < kCells; ++cell) {
      std::uint32_t below = 0;
      float inside = std::numeric_limits<float>::infinity();
      for (int i = 0; i < kThresholds; ++i) {
        const float threshold = kNf4 ? kNf4Thresholds[i] : kFp4Thresholds[i];
        if (cell_of<kNf4>(threshold) < cell) ++below;
        if (cell_of<kNf4>(threshold) == cell) inside = threshold;
      }
      if (cell == kCells - 1) below = 0;  // NaN compares false everywhere
      table.threshold[cell] = inside;
      table.below[cell] = below << 28;
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
