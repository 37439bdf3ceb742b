#include "core/training/text_stream.h"

#include <gtest/gtest.h>

namespace qshard {
namespace {

/// A decoder whose tokens are bytes; an incomplete character is U+FFFD. Like some tokenizers' decoders it leaves out
/// one blank at the front, and 256 is a special token without text.
std::string decode(const std::vector<std::int32_t>& tokens) {
  std::string bytes;
  for (const std::int32_t token : tokens) {
    if (token < 256) bytes += static_cast<char>(token);
  }
  std::string text;
  for (std::size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    text += i + length <= bytes.size() ? bytes.substr(i, length) : "\xEF\xBF\xBD";
    i += length;
  }
  return text.starts_with(' ') ? text.substr(1) : text;
}

std::vector<std::string> pieces(const std::vector<std::int32_t>& tokens) {
  TextStream stream;
  std::vector<std::string> pieces;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    stream.push(tokens[i]);
    const auto [without, with] = stream.windows();
    EXPECT_LE(with.size(), 12U);
    pieces.push_back(stream.take(decode(without), decode(with), i + 1 == tokens.size()));
  }
  return pieces;
}

std::vector<std::int32_t> bytes_of(std::string_view text) {
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

TEST(TextStream, ACharacterIsOutWithItsLastByte) {
  // e acute in two bytes, the euro sign in three, a face in four
  EXPECT_EQ(
      pieces(bytes_of("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z")),
      (std::vector<std::string>{"a", "", "\xC3\xA9", "", "", "\xE2\x82\xAC", "", "", "", "\xF0\x9F\x98\x80", "z"}));
}

TEST(TextStream, BlanksBetweenWordsStay) {
  std::string text;
  for (const std::string& piece : pieces(bytes_of(" two  words and a long rest of them"))) text += piece;
  EXPECT_EQ(text, "two  words and a long rest of them");
}

TEST(TextStream, SpecialTokensHaveNoText) {
  EXPECT_EQ(pieces({'a', 256, 'b', 256}), (std::vector<std::string>{"a", "", "b", ""}));
}

TEST(TextStream, AnEndWithinACharacterIsShownAsSuch) {
  EXPECT_EQ(pieces(bytes_of("a\xE2\x82")), (std::vector<std::string>{"a", "", "\xEF\xBF\xBD"}));
}

}  // namespace
}  // namespace qshard
