#pragma once

#include <string_view>

#include "core/formats/adapter_config.h"
#include "core/model/lora_options.h"
#include "core/model/model_config.h"

namespace qshard {

/// True where the adapter has a part on this module, by PEFT's rules: target_modules as a list or a pattern, less
/// exclude_modules; a list also only in the layers of layers_to_transform, unless it names the module in full. Throws
/// Error(bad_input) for what is not a regular expression.
bool is_target(const AdapterConfig& config, std::string_view module);

/// Rank and alpha of a module: r and lora_alpha, or what rank_pattern and alpha_pattern say where one of their keys,
/// read as a pattern, matches the module's name or its end after a dot. With use_rslora the alpha is one whose alpha /
/// r is lora_alpha / sqrt(r). Throws Error(bad_input) where two keys that say different things match.
LoraModule lora_module(const AdapterConfig& config, std::string_view module);

/// The options under which an engine has the adapter's modules, each named in full. Throws Error(bad_input) for
/// modules_to_save where embedding and output head are tied.
LoraOptions lora_options(const AdapterConfig& config, const ModelConfig& model);

}  // namespace qshard
