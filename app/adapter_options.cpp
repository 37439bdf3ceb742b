#include "app/adapter_options.h"

#include <algorithm>
#include <ranges>
#include <set>

#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/base/pattern.h"
#include "core/formats/adapter_targets.h"
#include "core/model/lora_targets.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

/// A list whose order says nothing.
Json in_order(Json value) {
  if (value.is_array()) std::sort(value.begin(), value.end());
  return value;
}

std::set<std::string> adapted_layers(const AdapterConfig& config, const ModelConfig& model) {
  std::set<std::string> names;
  for (const LinearModule& module : linear_modules(model)) {
    if (is_target(config, module.name)) names.insert(module.name);
  }
  return names;
}

bool is_of_any_layer(const std::string& name, const ModelConfig& model) {
  return std::ranges::any_of(linear_modules(model),
                             [&](const LinearModule& module) { return is_target({name}, module.name); });
}

void check_names(const RunConfig& config, std::string_view key, const std::vector<std::string>& names,
                 const ModelConfig& model) {
  for (const std::string& name : names) {
    if (name == kAllLinear || is_of_any_layer(name, model)) continue;
    fail_input("{}: \"{}\" is no linear layer of a decoder layer, which alone can have an adapter here; known: {}",
               config.where(key), name,
               fmt::join(layer_modules(model) | std::views::transform(&LinearModule::name), ", "));
  }
}

void check_patterns(const RunConfig& config, std::string_view key, const std::vector<std::string>& patterns,
                    const std::set<std::string>& layers) {
  for (const std::string& text : patterns) {
    const Pattern pattern("(.*\\.)?(" + text.substr(0, text.rfind('=')) + ")", config.where(key));
    if (std::ranges::any_of(layers, [&](const std::string& layer) { return pattern.matches_whole(layer); })) continue;
    fail_input("{}: no layer with an adapter matches \"{}\"", config.where(key), text);
  }
}

}  // namespace

AdapterConfig new_adapter_config(const RunConfig& config) {
  AdapterConfig adapter;
  adapter.r = config.lora.r;
  adapter.lora_alpha = config.lora.alpha;
  adapter.lora_dropout = config.lora.dropout;
  const std::vector<std::string>& targets = config.lora.target_modules;
  if (targets.size() == 1 && targets.front().find_first_of("\\()[]|*+?^$") != std::string::npos) {
    adapter.target_pattern = targets.front();
  } else {
    adapter.target_modules = targets;
  }
  adapter.use_rslora = config.lora_use_rslora;
  adapter.exclude_modules = config.lora_exclude_modules;
  adapter.layers_to_transform = config.lora_layers_to_transform;
  for (const std::string& text : config.lora_rank_pattern) {
    adapter.rank_pattern[text.substr(0, text.rfind('='))] = std::stoll(text.substr(text.rfind('=') + 1));
  }
  for (const std::string& text : config.lora_alpha_pattern) {
    adapter.alpha_pattern[text.substr(0, text.rfind('='))] = std::stod(text.substr(text.rfind('=') + 1));
  }
  adapter.use_dora = config.lora.use_dora;
  adapter.lora_bias = config.lora.lora_bias;
  adapter.modules_to_save = config.lora.modules_to_save;
  if (config.lora.start == LoraStart::gaussian) adapter.init_lora_weights = "gaussian";
  return adapter;
}

void check_new_adapter(const RunConfig& config, const ModelConfig& model) {
  const AdapterConfig adapter = new_adapter_config(config);
  check_names(config, "lora.target_modules", adapter.target_modules, model);
  check_names(config, "lora.exclude_modules", adapter.exclude_modules, model);
  for (const std::int64_t layer : adapter.layers_to_transform) {
    if (layer < model.num_hidden_layers) continue;
    fail_input("{}: {} is beyond the last layer, {}", config.where("lora.layers_to_transform"), layer,
               model.num_hidden_layers - 1);
  }
  const std::set<std::string> layers = adapted_layers(adapter, model);
  check_patterns(config, "lora.rank_pattern", config.lora_rank_pattern, layers);
  check_patterns(config, "lora.alpha_pattern", config.lora_alpha_pattern, layers);
}

void check_agrees(const RunConfig& config, const AdapterConfig& adapter, const ModelConfig& model) {
  const AdapterConfig given = new_adapter_config(config);
  const Json wanted = parse_json(adapter_config_text(given), "lora");
  const Json saved = parse_json(adapter_config_text(adapter), "adapter_config.json");
  const bool same_layers = adapted_layers(given, model) == adapted_layers(adapter, model);
  const auto check = [&](const std::string& key, bool may_differ) {
    const std::string option = "lora." + key;
    if (!config.has(option) || may_differ || in_order(wanted.at(key)) == in_order(saved.at(key))) return;
    fail_input("{}: the adapter that the run starts from has {} {}; leave the key out", config.where(option), key,
               saved.at(key).dump());
  };
  for (const char* key : {"target_modules", "exclude_modules", "layers_to_transform"}) check(key, same_layers);
  for (const char* key : {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias",
                          "modules_to_save", "init_lora_weights"}) {
    check(key, false);
  }
}

}  // namespace qshard
