#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qshard {

/// What PEFT's adapter_config.json says about a LoRA adapter: y += scaling * B A dropout(x).
struct AdapterConfig {
  std::int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  std::vector<std::string> target_modules;    // names, or "all-linear" alone; unused with a pattern
  std::optional<std::string> target_pattern;  // a regular expression that the whole module name must match
  std::optional<std::string> base_model_name_or_path;
  std::optional<std::string> task_type = "CAUSAL_LM";
  bool use_rslora = false;

  /// lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.
  [[nodiscard]] double scaling() const;
};

/// Reads the text of an adapter_config.json; `where` names the file. Throws Error(bad_input) naming file and key for
/// wrong values and for what is not computed here: another peft_type, DoRA, biases, ranks by module, modules saved
/// whole, and the like. Keys that PEFT does not know either are ignored, as PEFT does.
AdapterConfig parse_adapter_config(std::string_view text, std::string_view where);

/// The text that PEFT 0.21 writes.
std::string adapter_config_text(const AdapterConfig& config);

/// is_target() of the configuration's list or pattern. Throws Error(bad_input) for one that is not a regular
/// expression (ECMAScript's; Python's own extensions are not known).
bool is_target(const AdapterConfig& config, std::string_view module);

}  // namespace qshard
