#include "core/base/json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"

namespace qshard {
namespace {

constexpr std::size_t kMaximumDepth = 64;

/// Reads a document without keeping it, and refuses repeated keys and deep nesting. (A callback of Json::parse could do
/// so too, but with one, each object that ends makes the library look through all of its neighbours.)
class StructureCheck : public nlohmann::json_sax<Json> {
 public:
  explicit StructureCheck(std::string_view where) : where_(where) {}

  bool start_object(std::size_t /*size*/) override { return open(); }
  bool start_array(std::size_t /*size*/) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    if (!keys_.back().insert(name).second) fail_input("{}: {} appears twice", where_, Json(name).dump());
    return true;
  }

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(std::int64_t /*value*/) override { return true; }
  bool number_unsigned(std::uint64_t /*value*/) override { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return true; }
  bool string(std::string& /*value*/) override { return true; }
  bool binary(Json::binary_t& /*value*/) override { return true; }
  bool parse_error(std::size_t /*place*/, const std::string& /*token*/, const Json::exception& /*error*/) override {
    return false;  // Json::parse says it
  }

 private:
  bool open() {
    keys_.emplace_back();
    if (keys_.size() > kMaximumDepth) fail_input("{}: nested deeper than {} levels", where_, kMaximumDepth);
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::string_view where_;
  std::vector<std::set<std::string>> keys_;  // of each open object; empty for arrays
};

bool is_int64(const Json& value) {
  constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return value.is_number_unsigned() ? value.get<std::uint64_t>() <= kLargest : value.is_number_integer();
}

// A value for a message, cut where it is long.
std::string shown(const Json& value) {
  constexpr std::size_t kLongest = 100;
  const std::string text = value.dump();
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

void append_break(std::string& text, int indent, int level) {
  if (indent == 0) return;
  text += '\n';
  text.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(level), ' ');
}

// A path may be no UTF-8.
std::string ascii_json(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

void append_python(std::string& text, const Json& value, int indent, int level) {
  if (value.is_number_float()) {
    text += python_float(value.get<double>());
    return;
  }
  if (!value.is_structured() || value.empty()) {
    text += ascii_json(value);
    return;
  }
  text += value.is_object() ? '{' : '[';
  bool first = true;
  for (const auto& item : value.items()) {
    if (!first) text += indent == 0 ? ", " : ",";
    first = false;
    append_break(text, indent, level + 1);
    if (value.is_object()) text += python_string(item.key()) + ": ";
    append_python(text, item.value(), indent, level + 1);
  }
  append_break(text, indent, level);
  text += value.is_object() ? '}' : ']';
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  try {
    StructureCheck check(where);
    Json::sax_parse(text, &check);
    return Json::parse(text);
  } catch (const Json::exception& error) {
    fail_input("{}: not valid JSON: {}", where, error.what());
  }
}

std::string python_json(const Json& value, int indent) {
  std::string text;
  append_python(text, value, indent, 0);
  return text;
}

std::string python_string(std::string_view text) {
  return ascii_json(text);
}

std::string python_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  const double magnitude = std::abs(value);
  const bool plain = magnitude == 0.0 || (magnitude >= 1e-4 && magnitude < 1e16);
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

JsonObject::JsonObject(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) fail_input("{}: must be a JSON object, but is: {}", where_, value.type_name());
}

bool JsonObject::has(std::string_view key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const Json& JsonObject::at(std::string_view key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) fail_input("{}: missing", where(key));
  return *found;
}

std::int64_t JsonObject::integer(std::string_view key) const {
  return integer_at_least(key, std::numeric_limits<std::int64_t>::min());
}

std::int64_t JsonObject::integer_at_least(std::string_view key, std::int64_t smallest) const {
  const Json& value = at(key);
  if (!is_int64(value)) fail_input("{}: must be an integer, but is {}", where(key), shown(value));
  const auto integer = value.get<std::int64_t>();
  if (integer < smallest) fail_input("{}: must be at least {}, but is {}", where(key), smallest, integer);
  return integer;
}

double JsonObject::number(std::string_view key) const {
  const Json& value = at(key);
  if (!value.is_number()) fail_input("{}: must be a number, but is {}", where(key), shown(value));
  return value.get<double>();
}

bool JsonObject::boolean(std::string_view key) const {
  const Json& value = at(key);
  if (!value.is_boolean()) fail_input("{}: must be true or false, but is {}", where(key), shown(value));
  return value.get<bool>();
}

const std::string& JsonObject::string(std::string_view key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail_input("{}: must be a string, but is {}", where(key), shown(value));
  return value.get_ref<const std::string&>();
}

std::vector<std::int64_t> JsonObject::integers(std::string_view key) const {
  const Json& value = at(key);
  const bool valid = value.is_array() && std::all_of(value.begin(), value.end(), is_int64);
  if (!valid) fail_input("{}: must be a list of integers, but is {}", where(key), shown(value));
  return value.get<std::vector<std::int64_t>>();
}

std::vector<std::string> JsonObject::strings(std::string_view key) const {
  const Json& value = at(key);
  const bool valid =
      value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_string(); });
  if (!valid) fail_input("{}: must be a list of strings, but is {}", where(key), shown(value));
  return value.get<std::vector<std::string>>();
}

JsonObject JsonObject::object(std::string_view key) const {
  return {at(key), where(key)};
}

void JsonObject::allow_only(std::initializer_list<std::string_view> known) const {
  for (const auto& item : value_->items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) fail_input("{}: unknown", where(item.key()));
  }
}

std::string JsonObject::where(std::string_view key) const {
  return fmt::format("{}: {}", where_, key);
}

}  // namespace qshard
