#include "optimized/linear4bit/sixteen_values.h"

#include <array>
#include <random>

#include <gtest/gtest.h>

namespace qshard::test {
namespace {

using optimized::SixteenValues;

std::uint32_t pair(std::uint32_t lower, std::uint32_t upper) {
  return lower | upper << 16;
}

// Random codes and values: byte b of a word has element 2 b in its upper half, element 2 b + 1 in its lower one.
TEST(SixteenValues, LooksUpEveryCode) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::array<std::uint32_t, 16> values{};
    for (auto& value : values) value = random() & 0xFFFFU;
    const SixteenValues table([&](int i) { return pair(values[i], values[i + 1]); });
    const auto codes = static_cast<std::uint32_t>(random());
    std::array<std::uint32_t, 8> expected{};
    for (int i = 0; i < 8; ++i) expected[i] = values[codes >> (i / 2 * 8 + (i % 2 == 0 ? 4 : 0)) & 15U];

    std::array<std::uint32_t, 4> found{};
    table.look_up(codes, found[0], found[1], found[2], found[3]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(found[i], pair(expected[2 * i], expected[2 * i + 1])) << i;

    table.look_up_apart(codes, found[0], found[1], found[2], found[3]);
    EXPECT_EQ(found[0], pair(expected[0], expected[2]));
    EXPECT_EQ(found[1], pair(expected[4], expected[6]));
    EXPECT_EQ(found[2], pair(expected[1], expected[3]));
    EXPECT_EQ(found[3], pair(expected[5], expected[7]));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace qshard::test
