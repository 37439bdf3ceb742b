#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qshard {

/// The text of tokens that come one by one, each as soon as its characters are whole. A token's text depends on its
/// neighbours (a character's bytes in several tokens, a blank that a decoder leaves out at the front), so new text is
/// told by decoding a short window of tokens with and without the new ones.
class TextStream {
 public:
  void push(std::int32_t token) { tokens_.push_back(token); }

  /// Two lists of tokens to decode: the window without and with the tokens whose text is not out yet.
  [[nodiscard]] std::array<std::vector<std::int32_t>, 2> windows() const;

  /// Takes the two texts and returns the new part. Nothing while it ends in U+FFFD, as decoders say for bytes that are
  /// no whole character yet, unless `last` says that no token follows.
  std::string take(std::string_view without, std::string_view with, bool last);

 private:
  std::vector<std::int32_t> tokens_;
  std::size_t begin_ = 0;  // of the window
  std::size_t shown_ = 0;  // tokens whose text is out
};

}  // namespace qshard
