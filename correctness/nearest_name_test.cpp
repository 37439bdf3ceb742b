#include "core/base/nearest_name.h"

#include <array>
#include <string>

#include <gtest/gtest.h>

namespace qshard {
namespace {

TEST(NearestName, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("flaw", "lawn"), 2U);
}

TEST(NearestName, TakesTheNearestUnlessNoneIsNear) {
  constexpr std::array<std::string_view, 3> kNames{"max_steps", "save_steps", "seed"};
  EXPECT_EQ(nearest_name("max_step", kNames), "max_steps");
  EXPECT_EQ(nearest_name("sve_steps", kNames), "save_steps");
  EXPECT_EQ(nearest_name("sed", kNames), "seed");
  EXPECT_EQ(nearest_name("completely_else", kNames), "");
  EXPECT_EQ(nearest_name(std::string(100000, 'x'), kNames), "");
}

}  // namespace
}  // namespace qshard
