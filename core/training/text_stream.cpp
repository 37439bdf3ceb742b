#include "core/training/text_stream.h"

namespace qshard {

std::array<std::vector<std::int32_t>, 2> TextStream::windows() const {
  const auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(begin_);
  return {std::vector(begin, tokens_.begin() + static_cast<std::ptrdiff_t>(shown_)), std::vector(begin, tokens_.end())};
}

std::string TextStream::take(std::string_view without, std::string_view with, bool last) {
  constexpr std::string_view kNotWhole = "\xEF\xBF\xBD";  // U+FFFD
  if (with.size() <= without.size() || (with.ends_with(kNotWhole) && !last)) return {};
  begin_ = shown_;
  shown_ = tokens_.size();
  return std::string(with.substr(without.size()));
}

}  // namespace qshard
