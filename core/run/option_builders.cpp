#include "core/run/option_builders.h"

#include <algorithm>
#include <cmath>

namespace qshard::option_builders {
namespace {

template <typename T>
T parse_whole(const std::string& text, const std::string& type, std::string_view where) {
  T parsed{};
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(begin, end, parsed);
  if (error != std::errc() || rest != end) fail_input("{}: expected {}, got \"{}\"", where, type, text);
  return parsed;
}

}  // namespace

std::string describe(const IntegerBounds& bounds) {
  if (bounds.most == IntegerBounds{}.most) return fmt::format("integer, {} or more", bounds.least);
  return fmt::format("integer, {} to {}", bounds.least, bounds.most);
}

std::string describe(const NumberBounds& bounds) {
  const std::string from = fmt::format("{} {}", bounds.least_excluded ? "above" : "from", bounds.least);
  if (bounds.most == kUnbounded) return "number, " + from;
  return fmt::format("number, {} {} {}", from, bounds.most_excluded ? "to below" : "to", bounds.most);
}

const std::string& single(const OptionValue& value, std::string_view type, std::string_view where) {
  if (value.is_list) fail_input("{}: expected {}, got a list", where, type);
  return value.texts.front();
}

std::int64_t parse_integer(const OptionValue& value, const IntegerBounds& bounds, std::string_view where) {
  const std::string type = "an " + describe(bounds);
  const auto parsed = parse_whole<std::int64_t>(single(value, type, where), type, where);
  if (parsed < bounds.least || parsed > bounds.most) fail_input("{}: expected {}, got {}", where, type, parsed);
  return parsed;
}

double parse_number(const OptionValue& value, const NumberBounds& bounds, std::string_view where) {
  const std::string type = "a " + describe(bounds);
  const auto parsed = parse_whole<double>(single(value, type, where), type, where);
  const bool low = bounds.least_excluded ? !(parsed > bounds.least) : !(parsed >= bounds.least);
  const bool high = bounds.most_excluded ? !(parsed < bounds.most) : !(parsed <= bounds.most);
  if (low || high || !std::isfinite(parsed)) fail_input("{}: expected {}, got {}", where, type, parsed);
  return parsed;
}

bool parse_bool(const OptionValue& value, std::string_view where) {
  const std::string& text = single(value, "true or false", where);
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  fail_input("{}: expected true or false, got \"{}\"", where, text);
}

std::string yaml_text(std::string_view text) {
  const bool plain = std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '/' || c == '.';
  });
  if (plain && !text.empty()) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

std::string yaml_texts(const std::vector<std::string>& texts) {
  if (texts.size() <= 1) return texts.empty() ? std::string("\"\"") : yaml_text(texts.front());
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "[" : ", ") + yaml_text(text);
  return list + "]";
}

}  // namespace qshard::option_builders
