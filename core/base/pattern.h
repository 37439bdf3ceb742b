#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace qshard {

/// A regular expression with the meaning that Python's re gives it (by PCRE2, whose syntax takes in Python's). A match
/// that takes too many steps ends in an error instead of running without end.
class Pattern {
 public:
  /// `where` begins messages. Throws Error(bad_input) for a text that is no pattern, or longer than 1,000 characters.
  Pattern(std::string_view text, std::string_view where);

  /// True where the pattern matches the whole subject: Python's re.fullmatch. Throws Error(bad_input) at the limit.
  [[nodiscard]] bool matches_whole(std::string_view subject) const;

 private:
  std::shared_ptr<void> code_;
  std::string text_;
  std::string where_;
};

}  // namespace qshard
