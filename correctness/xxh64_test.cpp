#include "core/base/xxh64.h"

#include <string_view>

#include <gtest/gtest.h>

namespace qshard {
namespace {

std::uint64_t hash_of(std::string_view text) {
  return xxh64(std::as_bytes(std::span(text)));
}

// Values of xxhsum 0.8 (xxhsum -H1).
TEST(Xxh64, IsThatOfTheSpecification) {
  EXPECT_EQ(hash_of(""), 0xEF46DB3751D8E999U);
  EXPECT_EQ(hash_of("a"), 0xD24EC4F1A98C6E5BU);
  EXPECT_EQ(hash_of("abc"), 0x44BC2CF5AD770999U);
  EXPECT_EQ(hash_of("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1U);
}

TEST(Xxh64, EveryByteOfEveryLengthCounts) {
  std::string text;
  for (int size = 1; size < 100; ++size) {
    text.push_back(static_cast<char>(size * 7));
    const std::uint64_t before = hash_of(text);
    for (char& byte : text) {
      byte ^= 1;
      EXPECT_NE(hash_of(text), before) << size;
      byte ^= 1;
    }
    EXPECT_NE(hash_of(text + '\0'), before);
  }
}

}  // namespace
}  // namespace qshard
