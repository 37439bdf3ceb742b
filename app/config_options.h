#pragma once

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/run/run_config.h"

namespace qshard {

/// Adds one command-line option for every run option whose key begins with one of `prefixes` (none: all), with its
/// help; what is given is appended to `overrides`.
void add_config_options(CLI::App& command, const std::shared_ptr<Overrides>& overrides,
                        const std::vector<std::string>& prefixes);

/// " --key value" for each option with one of these prefixes that differs from its default, quoted for a shell.
std::string options_as_arguments(const RunConfig& config, const std::vector<std::string>& prefixes);

/// A text as one word of a shell command.
std::string shell_word(const std::string& text);

/// The keys that decide what a model computes, for commands without a configuration file.
const std::vector<std::string>& model_option_prefixes();

/// A check of an option: an empty text, as of a shell's unset variable, is refused.
CLI::Validator not_empty();

}  // namespace qshard
