#include "core/training/stop_texts.h"

#include <algorithm>
#include <utility>

namespace qshard {
namespace {

/// Bytes at the end of `text` that `stop` may begin with.
std::size_t begun(std::string_view text, std::string_view stop) {
  for (std::size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (stop.starts_with(text.substr(text.size() - length))) return length;
  }
  return 0;
}

}  // namespace

std::size_t StopTexts::first_stop() const {
  std::size_t first = std::string::npos;
  for (const std::string& stop : texts_) first = std::min(first, held_.find(stop));
  return first;
}

std::string StopTexts::push(std::string_view piece) {
  if (found_) return {};
  held_ += piece;
  const std::size_t first = first_stop();
  // A longer stop text that begins earlier may still be on its way.
  std::size_t keep = 0;
  for (const std::string& stop : texts_) keep = std::max(keep, begun(held_, stop));
  const std::size_t safe = held_.size() - keep;
  if (first != std::string::npos && first <= safe) {
    found_ = true;
    std::string text = held_.substr(0, first);
    held_.clear();
    return text;
  }
  std::string text = held_.substr(0, safe);
  held_.erase(0, safe);
  return text;
}

std::string StopTexts::finish() {
  const std::size_t first = first_stop();
  found_ = found_ || first != std::string::npos;
  return std::exchange(held_, {}).substr(0, first);
}

}  // namespace qshard
