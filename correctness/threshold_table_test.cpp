#include "optimized/threshold_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>

#include <gtest/gtest.h>

#include "correctness/threshold_testing.h"

namespace qshard::test {
namespace {

using optimized::ThresholdTable;

template <bool kNf4>
std::uint32_t cell(float x) {
  return as_on_gpu(ThresholdTable::cell_bits<kNf4>(x)) % ThresholdTable::kCells;
}

template <bool kNf4>
std::uint32_t found(float x) {
  static constexpr ThresholdTable kTable = ThresholdTable::make<kNf4>();
  const bool above = (kNf4 ? x : std::fabs(x)) > kTable.threshold[cell<kNf4>(x)];
  return (kTable.below[cell<kNf4>(x)] >> 28) + (above ? 1U : 0U);
}

template <bool kNf4>
void expect_counts(std::span<const float> thresholds) {
  const auto expect_count = [&](float x) {
    const auto count = std::ranges::count_if(thresholds, [&](float t) { return (kNf4 ? x : std::fabs(x)) > t; });
    EXPECT_EQ(found<kNf4>(x), count) << x;
  };
  std::set<std::uint32_t> cells;
  for (const float threshold : thresholds) {
    cells.insert(cell<kNf4>(threshold));
    EXPECT_EQ(cell<kNf4>(threshold), ThresholdTable::cell_of<kNf4>(threshold));
    for (const float x : {std::nextafter(threshold, -2.0F), threshold, std::nextafter(threshold, 2.0F)}) {
      expect_count(x);
      expect_count(-x);
    }
  }
  EXPECT_EQ(cells.size(), thresholds.size()) << "two in one cell";
  // A scaled element may be a few ulps above 1.
  for (int i = -(1 << 16) - 1; i <= (1 << 16) + 1; ++i) expect_count(static_cast<float>(i) * 0x1p-16F);
  expect_count(std::numeric_limits<float>::quiet_NaN());
}

TEST(ThresholdTable, CountsNf4Thresholds) {
  expect_counts<true>(kNf4Thresholds);
}

TEST(ThresholdTable, CountsFp4Thresholds) {
  expect_counts<false>(kFp4Thresholds);
}

}  // namespace
}  // namespace qshard::test
