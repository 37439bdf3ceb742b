#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
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
  std::vector<std::string> exclude_modules;          // names; unused with a pattern
  std::optional<std::string> exclude_pattern;        // the whole module name must match it
  std::vector<std::int64_t> layers_to_transform;     // empty: all
  std::vector<std::string> layers_pattern;           // what stands before a layer's number; empty: anything
  std::map<std::string, std::int64_t> rank_pattern;  // pattern of modules to r
  std::map<std::string, double> alpha_pattern;       // pattern of modules to lora_alpha
  bool use_dora = false;                             // a trained magnitude for each output of an adapted layer
  bool lora_bias = false;                            // a trained bias after B
  std::vector<std::string> modules_to_save;          // trained and saved whole: of embed_tokens and lm_head
  std::string bias = "none";                         // "all" and "lora_only" mean nothing where no layer has a bias
  std::variant<bool, std::string> init_lora_weights = true;  // how a new adapter begins; true, false or "gaussian"

  /// lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.
  [[nodiscard]] double scaling() const;
};

/// Reads the text of an adapter_config.json; `where` names the file. Throws Error(bad_input) naming file and key for
/// wrong values, for what is not computed here (another peft_type, trained biases of the model, other modules than
/// embedding and head saved whole, a start that changes the base weights, and the like) and for keys that PEFT 0.21
/// does not know, unless they are null, false or empty.
AdapterConfig parse_adapter_config(std::string_view text, std::string_view where);

/// The text that PEFT 0.21 writes.
std::string adapter_config_text(const AdapterConfig& config);

}  // namespace qshard
