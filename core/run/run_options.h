#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/run/run_config.h"

namespace qshard {

/// A value as it was written: one text, or a list of texts. A section of names and texts becomes a list of "name=text".
struct OptionValue {
  bool is_list = false;
  std::vector<std::string> texts;  // exactly one unless is_list
};

/// One row of the table from which parsing, bounds, --help and suggestions come.
struct RunOption {
  std::string_view key;  // "training.max_steps"
  std::string type;      // with its bounds: "integer, 1 or more", "true | false", "text", or the choices: "nf4 | fp4"
  std::string_view doc;
  /// Reads `value` into the configuration. Throws Error(bad_input), beginning with `where`, for a wrong type or a
  /// value out of bounds.
  std::function<void(RunConfig& config, const OptionValue& value, std::string_view where)> set;
  std::function<std::string(const RunConfig& config)> get;  // as YAML; of RunConfig{}: the default
  bool takes_section = false;                               // a section of names and texts is a value too
};

/// All options, in the order of --help.
std::span<const RunOption> run_options();

/// The option of this key, or null.
const RunOption* find_run_option(std::string_view key);

/// ` (did you mean "training.max_steps"?)`, or nothing when no key is near. A key without its section finds it too. For
/// a name of transformers, TRL or PEFT: what it is called here, or why it is missing.
std::string suggest_run_option(std::string_view key);

}  // namespace qshard
