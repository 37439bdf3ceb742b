#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "optimized/host_device.h"
#include "optimized/threshold_table.h"

namespace qshard::optimized {

/// ThresholdTable for NF4 and bfloat16 with one look-up and no comparison. The position of an element x is x m + 2,
/// where the multiplier m is kScale times the reciprocal of its block's absmax. Positions are positive, so that their
/// bits, taken as an integer, grow with them. The sum of these bits and the addend of the position's cell has the code
/// in its four highest bits: it carries into them where the position is above the cell's threshold.
///
/// A position is rounded otherwise than the product of x and the reciprocal, which the thresholds are for. The codes
/// are exact nevertheless: x and absmax have eight significant bits each, so that no product comes near enough to a
/// threshold for that to matter. correctness/threshold_sums_test.cpp tries all mantissas, at both ends of
/// the exponents and in their middle (between them nothing but the power of two differs), and reciprocals off by an
/// ulp. It does not hold for float16.
struct ThresholdSums {
  static constexpr int kCells = ThresholdTable::kCells;
  static constexpr float kScale = 1.875F;  // from scaled elements to positions: a cell is 1/8 wide
  static constexpr float kZero = 2.0F;     // the position of 0

  std::uint32_t addend[kCells];

  /// x * multiplier + addend, rounded once; on a GPU subnormal operands count as zero.
  QSHARD_HOST_DEVICE static std::uint32_t sum_bits(float x, float multiplier, float addend) {
#ifdef __CUDA_ARCH__
    float sum;
    asm("fma.rn.ftz.f32 %0, %1, %2, %3;" : "=f"(sum) : "f"(x), "f"(multiplier), "f"(addend));
    return bits_of(sum);
#else
    return bits_of(std::fma(x, multiplier, addend));
#endif
  }

  QSHARD_HOST_DEVICE static std::uint32_t position_bits(float x, float multiplier) {
    return sum_bits(x, multiplier, kZero);
  }

  /// The cell in the five lowest bits: adding 1.5 * 2^20 leaves eighths in the low mantissa bits. A GPU's NaN has them
  /// all set.
  QSHARD_HOST_DEVICE static std::uint32_t cell_bits(float x, float multiplier) {
    return sum_bits(x, multiplier, 1572864.0F + kScale);
  }

  static constexpr ThresholdSums make() {
    constexpr auto kThresholdTable = ThresholdTable::make<true>();
    constexpr std::uint32_t kHighestPosition = std::bit_cast<std::uint32_t>(4.0F);
    ThresholdSums sums{};
    for (int cell = 0; cell < kCells - 1; ++cell) {
      const float threshold = kThresholdTable.threshold[cell];
      const std::uint32_t position =
          threshold > 1.0F ? kHighestPosition
                           : std::bit_cast<std::uint32_t>(static_cast<float>(double{threshold} * kScale + kZero));
      sums.addend[cell] = kThresholdTable.below[cell] + 0x0FFFFFFFU - position;
    }
    sums.addend[kCells - 1] = 0U - 0x7FFFFFFFU;  // NaN's bits: code 0
    return sums;
  }
};

}  // namespace qshard::optimized
