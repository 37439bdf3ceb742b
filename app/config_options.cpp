#include "app/config_options.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "core/run/run_options.h"

namespace qshard {
namespace {

bool has_prefix(std::string_view key, const std::vector<std::string>& prefixes) {
  return prefixes.empty() || std::ranges::any_of(prefixes, [&](const auto& prefix) { return key.starts_with(prefix); });
}

std::string section_of(std::string_view key) {
  const std::size_t dot = key.find('.');
  return dot == std::string_view::npos ? "Model" : "Section " + std::string(key.substr(0, dot));
}

}  // namespace

void add_config_options(CLI::App& command, const std::shared_ptr<Overrides>& overrides,
                        const std::vector<std::string>& prefixes) {
  const RunConfig defaults;
  for (const RunOption& option : run_options()) {
    if (!has_prefix(option.key, prefixes)) continue;
    const std::string key(option.key);
    const auto append = [overrides, key](const std::string& value) { overrides->emplace_back(key, value); };
    const std::string doc = fmt::format("({}) {} [{}]", option.type, option.doc, option.get(defaults));
    command.add_option_function<std::string>("--" + key, append, doc)
        ->group(section_of(key))
        ->type_name("")
        ->take_last();
  }
}

std::string options_as_arguments(const RunConfig& config, const std::vector<std::string>& prefixes) {
  const RunConfig defaults;
  std::string arguments;
  for (const RunOption& option : run_options()) {
    const std::string value = option.get(config);
    if (!has_prefix(option.key, prefixes) || value == option.get(defaults)) continue;
    arguments += fmt::format(" --{} {}", option.key, shell_word(value));
  }
  return arguments;
}

std::string shell_word(const std::string& text) {
  const bool plain = !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '/' || c == '.' || c == '=' || c == ',';
  });
  if (plain) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

CLI::Validator not_empty() {
  return {[](const std::string& text) { return text.empty() ? std::string("is empty") : std::string(); }, ""};
}

const std::vector<std::string>& model_option_prefixes() {
  static const std::vector<std::string> prefixes{"dtype", "device", "quantization."};
  return prefixes;
}

}  // namespace qshard
