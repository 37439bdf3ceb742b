#include "optimized/dynamic_map_sums.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/tensor/codebook.h"
#include "reference/flush_to_zero.h"
#include "reference/nearest_code.h"
#include "reference/reciprocal.h"

namespace qshard::test {
namespace {

using optimized::DynamicMapSums;
using reference::multiply_flushed;
using reference::nearest_code;

using Map = std::array<float, 256>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Floats in ascending order, -0 before +0.
std::uint32_t rank_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000U;
}

float of_rank(std::uint32_t rank) {
  return std::bit_cast<float>(rank >> 31 != 0 ? rank & 0x7FFFFFFFU : ~rank);
}

/// The largest float whose code is `entry` or less, by halving all of them.
float threshold(const Map& map, int entry) {
  std::uint32_t from = rank_of(-kInfinity);
  std::uint32_t end = rank_of(kInfinity) + 1;
  while (end - from > 1) {
    const std::uint32_t middle = from + (end - from) / 2;
    (nearest_code(of_rank(middle), map) <= entry ? from : end) = middle;
  }
  return of_rank(from);
}

std::vector<float> thresholds_of(const Map& map) {
  std::vector<float> thresholds(255);
  for (std::size_t entry = 0; entry < 255; ++entry) thresholds[entry] = threshold(map, static_cast<int>(entry));
  return thresholds;
}

/// All cells, three at a time, as a thread of the kernel makes them.
bool build(DynamicMapSums& sums, const Map& map) {
  const std::vector<float> thresholds = thresholds_of(map);
  const auto threshold_at = [&](int i) { return i < 255 ? thresholds.at(static_cast<std::size_t>(i)) : kInfinity; };
  bool fits = true;
  int below = 0;
  for (int cell = 0; cell < DynamicMapSums::kCells; ++cell) {
    if (cell % 3 == 0) below = nearest_code(DynamicMapSums::value_at(DynamicMapSums::first_position(cell)), map);
    fits &= sums.build_cell(cell, below, threshold_at);
  }
  return fits;
}

/// A map with the look-up that was made for it.
class LookUp {
 public:
  explicit LookUp(const Map& map) : map_(map) { EXPECT_TRUE(build(*sums_, map_)); }

  [[nodiscard]] int code(float product) const { return static_cast<int>(sums_->sum(product) >> 24); }

  void expect_code(float x) const {
    ASSERT_LT(std::fabs(x), 2.0F);
    ASSERT_EQ(code(multiply_flushed(x, DynamicMapSums::kScale)), nearest_code(x, map_)) << x;
  }

 private:
  Map map_;
  std::unique_ptr<DynamicMapSums> sums_ = std::make_unique<DynamicMapSums>();
};

/// Every other threshold lies at that place of a cell, the ones between them two cells further on.
Map thresholds_at(int place) {
  constexpr int kOctave = 64;
  constexpr int kPairs = 64;  // of one sign, over four octaves
  Map map{};
  for (int pair = 0; pair < 2 * kPairs; ++pair) {
    const int cell = pair < kPairs ? DynamicMapSums::kCells / 2 + kOctave + 4 * pair
                                   : DynamicMapSums::kCells / 2 - 5 * kOctave + 4 * (pair - kPairs);
    const int position = DynamicMapSums::first_position(cell) + place;
    const auto entry = 2 * static_cast<std::size_t>(pair);
    map.at(entry) = DynamicMapSums::value_at(position - 32);
    map.at(entry + 1) = DynamicMapSums::value_at(position + 32);
  }
  return map;
}

std::vector<Map> maps_that_fit() {
  return {dynamic_map(), thresholds_at(0), thresholds_at(DynamicMapSums::first_position(1) - 1)};
}

TEST(DynamicMapSums, EveryThresholdAndItsNeighbours) {
  for (const Map& map : maps_that_fit()) {
    const LookUp look_up(map);
    for (const float t : thresholds_of(map)) {
      for (const float x : {std::nextafter(t, -2.0F), t, std::nextafter(t, 2.0F)}) {
        look_up.expect_code(x);
        look_up.expect_code(-x);
      }
    }
    for (const float x : map) look_up.expect_code(x);
  }
}

TEST(DynamicMapSums, EveryCellsEnds) {
  for (const Map& map : maps_that_fit()) {
    const LookUp look_up(map);
    for (int cell = 0; cell < DynamicMapSums::kCells; ++cell) {
      const int first = DynamicMapSums::first_position(cell);
      const int last = DynamicMapSums::first_position(cell + 1) - 1;
      EXPECT_LE(DynamicMapSums::value_at(first), DynamicMapSums::value_at(last)) << cell;
      for (const int position : {first, last}) {
        const float x = DynamicMapSums::value_at(position);
        EXPECT_EQ(DynamicMapSums::position(x * DynamicMapSums::kScale), position);
        look_up.expect_code(x);
      }
    }
  }
}

TEST(DynamicMapSums, EveryExponent) {
  const LookUp look_up(dynamic_map());
  std::mt19937_64 generator(3);
  for (int exponent = 0; exponent < 128; ++exponent) {
    for (int i = 0; i < 20'000; ++i) {
      const auto mantissa = static_cast<std::uint32_t>(generator()) >> 9;
      for (const std::uint32_t sign : {0U, 0x80000000U}) {
        look_up.expect_code(std::bit_cast<float>(sign | static_cast<std::uint32_t>(exponent) << 23 | mantissa));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(DynamicMapSums, ValuesNextToZero) {
  using Limits = std::numeric_limits<float>;
  constexpr float kSmallest = DynamicMapSums::kSmallest;
  const LookUp look_up(dynamic_map());
  for (const float x : {0.0F, Limits::denorm_min(), Limits::min(), std::nextafter(kSmallest, 0.0F), kSmallest,
                        std::nextafter(kSmallest, 1.0F)}) {
    look_up.expect_code(x);
    look_up.expect_code(-x);
  }
}

// The product has the code of the value that bitsandbytes scales.
TEST(DynamicMapSums, BlocksOfEveryAbsmaxThatIsTaken) {
  const LookUp look_up(dynamic_map());
  std::mt19937_64 generator(4);
  for (int exponent = -126; exponent <= 21; ++exponent) {
    for (int i = 0; i < 200; ++i) {
      const float part = static_cast<float>(generator() >> 40) * 0x1p-24F;
      const float largest = std::ldexp(exponent < 21 ? 1.0F + part : 1.0F, exponent);
      ASSERT_TRUE(DynamicMapSums::takes(largest));
      const float reciprocal = reference::reciprocal(largest, reference::Reciprocal::gpu);
      const float multiplier = multiply_flushed(reciprocal, DynamicMapSums::kScale);
      std::vector<float> values{largest, -largest, 0.0F};
      while (values.size() < 50) {
        const auto place = static_cast<float>(static_cast<std::int32_t>(generator()));
        values.push_back(largest * std::ldexp(place, -31 - static_cast<int>(generator() % 26)));
      }
      for (const float value : values) {
        const int code = look_up.code(multiply_flushed(value, multiplier));
        ASSERT_EQ(code, nearest_code(multiply_flushed(value, reciprocal), dynamic_map())) << value << " of " << largest;
      }
    }
  }
}

TEST(DynamicMapSums, LeavesOtherBlocksToTheSearch) {
  using Limits = std::numeric_limits<float>;
  for (const float largest : {Limits::quiet_NaN(), kInfinity, -kInfinity, 0.0F, -0.0F, -Limits::max(), Limits::max(),
                              std::nextafter(0x1p+21F, kInfinity)}) {
    EXPECT_FALSE(DynamicMapSums::takes(largest)) << largest;
  }
  EXPECT_TRUE(DynamicMapSums::takes(Limits::min()));
}

/// dynamic_map() with the entries from `entry` on set to those of `values`.
Map changed(std::size_t entry, std::initializer_list<float> values) {
  Map map = dynamic_map();
  std::ranges::copy(values, map.begin() + static_cast<std::ptrdiff_t>(entry));
  EXPECT_TRUE(std::ranges::is_sorted(map));
  return map;
}

TEST(DynamicMapSums, KnowsMapsThatDoNotFit) {
  const auto sums = std::make_unique<DynamicMapSums>();
  const Map& map = dynamic_map();
  EXPECT_TRUE(build(*sums, map));
  EXPECT_FALSE(build(*sums, changed(200, {map[200], map[200], map[200]}))) << "equal thresholds";
  EXPECT_FALSE(build(*sums, changed(200, {map[200], map[200] + 0x1p-12F, map[200] + 0x1p-11F}))) << "two in a cell";
  EXPECT_FALSE(build(*sums, changed(50, {map[50], map[50] + 0x1p-12F, map[50] + 0x1p-11F})))
      << "two in a negative cell";
  EXPECT_FALSE(build(*sums, changed(126, {-0x1p-30F, 0.0F, 0x1p-30F}))) << "small thresholds";
  Map symmetric{};
  for (int i = 0; i < 256; ++i) symmetric.at(static_cast<std::size_t>(i)) = (static_cast<float>(i) - 127.5F) / 127.5F;
  EXPECT_FALSE(build(*sums, symmetric)) << "a threshold of 0";
  EXPECT_FALSE(build(*sums, unsigned_dynamic_map())) << "128 values in the highest power of ten";
}

}  // namespace
}  // namespace qshard::test
