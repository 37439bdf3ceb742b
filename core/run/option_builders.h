#pragma once

#include <charconv>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/run/run_options.h"

/// How a row of the option table is made: a key, an accessor `[](auto& c) -> auto& { return c.member; }` and bounds
/// become a RunOption with its parser, its printer and its description.
namespace qshard::option_builders {

inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();

struct IntegerBounds {
  std::int64_t least = 0;
  std::int64_t most = std::numeric_limits<std::int32_t>::max();
};

struct NumberBounds {
  double least = 0;
  double most = kUnbounded;     // inclusive
  bool most_excluded = false;   // then exclusive
  bool least_excluded = false;  // least itself is out of bounds
};

std::string describe(const IntegerBounds& bounds);
std::string describe(const NumberBounds& bounds);

/// The value's only text. Throws Error(bad_input) for a list.
const std::string& single(const OptionValue& value, std::string_view type, std::string_view where);

std::int64_t parse_integer(const OptionValue& value, const IntegerBounds& bounds, std::string_view where);
double parse_number(const OptionValue& value, const NumberBounds& bounds, std::string_view where);
bool parse_bool(const OptionValue& value, std::string_view where);

/// A text as a YAML scalar: quoted where it would otherwise be read as something else.
std::string yaml_text(std::string_view text);

/// One text as itself, several as a YAML list.
std::string yaml_texts(const std::vector<std::string>& texts);

template <typename Member>
RunOption integer(std::string_view key, Member member, IntegerBounds bounds, std::string_view doc) {
  return {key, describe(bounds), doc,
          [member, bounds](RunConfig& config, const OptionValue& value, std::string_view where) {
            using T = std::remove_reference_t<decltype(member(config))>;
            member(config) = static_cast<T>(parse_integer(value, bounds, where));
          },
          [member](const RunConfig& config) { return fmt::format("{}", member(config)); }};
}

template <typename Member>
RunOption number(std::string_view key, Member member, NumberBounds bounds, std::string_view doc) {
  return {key, describe(bounds), doc,
          [member, bounds](RunConfig& config, const OptionValue& value, std::string_view where) {
            member(config) = parse_number(value, bounds, where);
          },
          [member](const RunConfig& config) { return fmt::format("{}", member(config)); }};
}

template <typename Member>
RunOption boolean(std::string_view key, Member member, std::string_view doc) {
  return {key, "true | false", doc,
          [member](RunConfig& config, const OptionValue& value, std::string_view where) {
            member(config) = parse_bool(value, where);
          },
          [member](const RunConfig& config) { return std::string(member(config) ? "true" : "false"); }};
}

template <typename Member>
RunOption text(std::string_view key, Member member, std::string_view doc) {
  return {key, "text", doc,
          [member](RunConfig& config, const OptionValue& value, std::string_view where) {
            member(config) = single(value, "a text", where);
          },
          [member](const RunConfig& config) { return yaml_text(member(config)); }};
}

/// One text or a list of texts.
template <typename Member>
RunOption texts(std::string_view key, Member member, std::string_view type, std::string_view doc) {
  return {key, std::string(type), doc,
          [member](RunConfig& config, const OptionValue& value, std::string_view where) {
            for (const std::string& text : value.texts) {
              if (text.empty()) fail_input("{}: a text is empty", where);
            }
            member(config) = value.texts;
          },
          [member](const RunConfig& config) { return yaml_texts(member(config)); }};
}

/// A section of names and texts, or a list of NAME=TEXT; `check` sees each text.
template <typename Member>
RunOption named_texts(std::string_view key, Member member, std::string_view example, std::string_view doc,
                      void (*check)(const std::string& text, std::string_view where) = nullptr) {
  RunOption option = texts(key, member, "section or list of NAME=VALUE", doc);
  option.takes_section = true;
  option.set = [member, example, check](RunConfig& config, const OptionValue& value, std::string_view where) {
    for (const std::string& text : value.texts) {
      const std::size_t equals = text.rfind('=');
      if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
        fail_input("{}: expected NAME=VALUE, such as {}, got \"{}\"", where, example, text);
      }
      if (check != nullptr) check(text.substr(equals + 1), where);
    }
    member(config) = value.texts;
  };
  return option;
}

/// Choices by name; the first name of a value is the one that is printed.
template <typename T, typename Member>
RunOption choice(std::string_view key, Member member, std::vector<std::pair<std::string_view, T>> choices,
                 std::string_view doc) {
  std::string names;
  for (const auto& [name, unused] : choices) names += (names.empty() ? "" : " | ") + std::string(name);
  return {key, names, doc,
          [member, choices, names](RunConfig& config, const OptionValue& value, std::string_view where) {
            const std::string& given = single(value, "one of " + names, where);
            for (const auto& [name, meaning] : choices) {
              if (given != name) continue;
              member(config) = meaning;
              return;
            }
            fail_input("{}: \"{}\" is not one of {}", where, given, names);
          },
          [member, choices](const RunConfig& config) {
            for (const auto& [name, meaning] : choices) {
              if (member(config) == meaning) return std::string(name);
            }
            return std::string();
          }};
}

}  // namespace qshard::option_builders
