#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "optimized/host_device.h"
#include "optimized/threshold_table.h"

namespace qshard::optimized {

/// Counts the thresholds below a value with one table look-up instead of a search: the index of the nearest one of a
/// map's 256 ascending values, where threshold i parts entry i from the next one. For values with |x| < 2, NaN not
/// among them, and for maps of which build_cell() says that they fit: bitsandbytes' signed dynamic map does.
///
/// A value is multiplied by kScale first. Where subnormal results are flushed, values below kSmallest become 0, and
/// what is left has 24 exponents. The position of a product is its bits taken as an integer, for a negative one counted
/// down from 2 kSignEnd, so that positions of one sign grow with the value. A cell is the positions of one sign, one
/// exponent and the same six highest mantissa bits; with five, two thresholds of the dynamic map would be in one. The
/// sum of a position, shifted to the left, and the addend of its cell has the code in its eight highest bits: it
/// carries into them where the position is above that of the cell's threshold.
struct DynamicMapSums {
  static constexpr float kScale = 0x1p-104F;
  static constexpr float kSmallest = 0x1p-22F;       // becomes the smallest normal number
  static constexpr int kSignEnd = 24 << 23;          // the position of 2
  static constexpr std::uint32_t kWidth = 1U << 17;  // positions of a cell
  static constexpr int kCells = 2 * kSignEnd / static_cast<int>(kWidth);
  static constexpr std::uint32_t kPositionFactor = (1U << 24) / kWidth;

  std::uint32_t addend[kCells];

  /// Whether the values of a block can be looked up once they are scaled by the reciprocal of `largest`, their largest
  /// magnitude, NaN where one of them is NaN. The reciprocal times kScale is not subnormal then.
  QSHARD_HOST_DEVICE static bool takes(float largest) { return largest > 0.0F && largest <= 0x1p+21F; }

  QSHARD_HOST_DEVICE static int position(float product) {
    const auto bits = static_cast<int>(bits_of(product));
    return larger(bits, kFold - bits);
  }

  /// The value whose product has that position.
  QSHARD_HOST_DEVICE static float value_at(int position) {
    const int bits = position < kSignEnd ? position : kFold - position;
    float product = 0.0F;
    memcpy(&product, &bits, sizeof bits);
    return product * (1.0F / kScale);
  }

  QSHARD_HOST_DEVICE static int first_position(int cell) { return cell * static_cast<int>(kWidth); }

  /// Makes the addend of a cell. below: the number of thresholds below the cell; afterwards also that in the cell is
  /// counted. threshold_at(i): threshold i, and +infinity for 255. Returns whether the map fits here: the cell holds
  /// one threshold at most, and none that may be flushed.
  template <typename ThresholdAt>
  QSHARD_HOST_DEVICE bool build_cell(int cell, int& below, ThresholdAt threshold_at) {
    const int last = first_position(cell + 1) - 1;
    const float threshold = threshold_at(below);
    const bool inside = threshold <= value_at(last);
    const int highest = inside ? position(threshold * kScale) : last;  // with the code `below`
    addend[cell] = static_cast<std::uint32_t>(below) << 24;
    addend[cell] += (kWidth - 1 - static_cast<std::uint32_t>(highest)) * kPositionFactor;
    if (!inside) return true;
    ++below;
    return std::fabs(threshold) > kSmallest && threshold_at(below) > value_at(last);
  }

  /// The code in the eight highest bits. product: the value times kScale, not subnormal.
  QSHARD_HOST_DEVICE std::uint32_t sum(float product) const {
    const auto at = static_cast<std::uint32_t>(position(product));
    return addend[at / kWidth] + at * kPositionFactor;
  }

 private:
  /// The sum of a negative product's bits and its position.
  static constexpr int kFold = std::numeric_limits<int>::min() + 2 * kSignEnd - 1;
};

}  // namespace qshard::optimized
