#include "core/training/stop_texts.h"

#include <random>

#include <gtest/gtest.h>

namespace qshard {
namespace {

struct Cut {
  std::string text;
  bool found = false;
};

/// Pieces of random lengths.
Cut in_pieces(const std::string& text, const std::vector<std::string>& stops, std::mt19937& random) {
  StopTexts cutter(stops);
  Cut cut;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t length = 1 + random() % 3;
    cut.text += cutter.push(text.substr(begin, length));
    begin += length;
  }
  cut.text += cutter.finish();
  cut.found = cutter.found();
  return cut;
}

TEST(StopTexts, TheCutDoesNotDependOnThePieces) {
  std::mt19937 random(11);
  int found = 0;
  const auto some_text = [&](std::size_t longest) {
    std::string text;
    const std::size_t length = 1 + random() % longest;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int trial = 0; trial < 3000; ++trial) {
    const std::string text = some_text(20);
    const std::vector<std::string> stops{some_text(6), some_text(6)};
    const std::size_t first = std::min(text.find(stops[0]), text.find(stops[1]));
    const Cut cut = in_pieces(text, stops, random);
    EXPECT_EQ(cut.text, text.substr(0, first)) << text << " " << stops[0] << " " << stops[1];
    EXPECT_EQ(cut.found, first != std::string::npos);
    found += cut.found ? 1 : 0;
  }
  EXPECT_GT(found, 500);
  EXPECT_LT(found, 2900);
}

TEST(StopTexts, WhatCannotBeAStopTextIsOutAtOnce) {
  StopTexts cutter({"STOP"});
  EXPECT_EQ(cutter.push("a ST"), "a ");
  EXPECT_EQ(cutter.push("x"), "STx");
  EXPECT_EQ(cutter.push("S"), "");
  EXPECT_EQ(cutter.push("TOPPED"), "");
  EXPECT_TRUE(cutter.found());
  EXPECT_EQ(cutter.push("more"), "");
  EXPECT_EQ(cutter.finish(), "");
}

TEST(StopTexts, WithoutStopTextsEverythingIsOutAtOnce) {
  StopTexts cutter({});
  EXPECT_EQ(cutter.push("ab"), "ab");
  EXPECT_EQ(cutter.finish(), "");
  EXPECT_FALSE(cutter.found());
}

}  // namespace
}  // namespace qshard
