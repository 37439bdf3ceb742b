#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace qshard {

using Json = nlohmann::json;

/// Parses one JSON document. `where` names the file in errors. Throws Error(bad_input) for text that is not JSON
/// (with the place), not UTF-8, holds a key twice in one object, or nests deeper than 64 levels.
Json parse_json(std::string_view text, std::string_view where);

/// The text that Python's json.dumps gives: ", " and ": " between items with indent 0, otherwise a line for each; other
/// characters than ASCII escaped, bytes that are not UTF-8 as U+FFFD; numbers as Python's repr. Keys in ascending
/// order, as with sort_keys=True.
std::string python_json(const Json& value, int indent = 0);

/// The same of a string or of a double (the shortest digits that give it back).
std::string python_string(std::string_view text);
std::string python_float(double value);

/// Reads the fields of one JSON object with errors that name the file and the key.
class JsonObject {
 public:
  /// `where` is the file and, for an inner object, the key that leads to it. Throws Error(bad_input) unless `value` is
  /// an object; `value` must outlive this.
  JsonObject(const Json& value, std::string where);

  /// True where the key is there and not null.
  [[nodiscard]] bool has(std::string_view key) const;

  // The value of a key, as the type asked for. Throw Error(bad_input) where it is missing, null or of another type.
  [[nodiscard]] std::int64_t integer(std::string_view key) const;
  [[nodiscard]] std::int64_t integer_at_least(std::string_view key, std::int64_t smallest) const;
  [[nodiscard]] double number(std::string_view key) const;  // finite
  [[nodiscard]] bool boolean(std::string_view key) const;
  [[nodiscard]] const std::string& string(std::string_view key) const;
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key) const;
  [[nodiscard]] std::vector<std::string> strings(std::string_view key) const;
  [[nodiscard]] JsonObject object(std::string_view key) const;

  /// Throws Error(bad_input) for a key that is not among `known`.
  void allow_only(std::initializer_list<std::string_view> known) const;

  /// "<file>: <key>", for messages about a value.
  [[nodiscard]] std::string where(std::string_view key) const;
  [[nodiscard]] const Json& value() const { return *value_; }

 private:
  [[nodiscard]] const Json& at(std::string_view key) const;

  const Json* value_;
  std::string where_;
};

}  // namespace qshard
