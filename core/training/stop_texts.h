#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qshard {

/// Cuts a text that comes in pieces before the first of some stop texts, however the pieces lie: what may be the
/// beginning of one is held back until it is known. Where several occur, the one that begins first counts.
class StopTexts {
 public:
  /// None of them may be empty.
  explicit StopTexts(std::vector<std::string> texts) : texts_(std::move(texts)) {}

  /// Takes the next piece; returns what can be printed now. Nothing once a stop text was found.
  std::string push(std::string_view piece);

  /// What was held back, at the end of the text.
  std::string finish();

  [[nodiscard]] bool found() const { return found_; }

 private:
  [[nodiscard]] std::size_t first_stop() const;

  std::vector<std::string> texts_;
  std::string held_;
  bool found_ = false;
};

}  // namespace qshard
