#include "core/formats/adapter_targets.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "core/base/error.h"
#include "core/base/pattern.h"
#include "core/model/lora_targets.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

/// The first segment that is a number and follows a name: "model.layers.3.mlp.up_proj" is of layer 3.
std::optional<std::int64_t> layer_of(const AdapterConfig& config, std::string_view module) {
  std::string_view before;
  for (std::size_t begin = 0; begin < module.size();) {
    const std::size_t end = std::min(module.find('.', begin), module.size());
    const std::string_view segment = module.substr(begin, end - begin);
    std::int64_t number = 0;
    const auto [rest, error] = std::from_chars(segment.data(), segment.data() + segment.size(), number);
    const bool is_number = error == std::errc() && rest == segment.data() + segment.size();
    const bool follows = config.layers_pattern.empty()
                             ? !before.empty()
                             : std::ranges::any_of(config.layers_pattern, [&](const auto& name) {
                                 return Pattern(name, "layers_pattern").matches_whole(before);
                               });
    if (is_number && follows) return number;
    before = segment;
    begin = end + 1;
  }
  return std::nullopt;
}

bool is_excluded(const AdapterConfig& config, std::string_view module) {
  if (config.exclude_pattern) return Pattern(*config.exclude_pattern, "exclude_modules").matches_whole(module);
  return !config.exclude_modules.empty() && is_target(config.exclude_modules, module);
}

/// The value of the key that matches the module.
template <typename T>
T value_of(const std::map<std::string, T>& patterns, std::string_view module, std::string_view where, T otherwise) {
  std::optional<T> value;
  for (const auto& [key, candidate] : patterns) {
    if (!Pattern("(.*\\.)?(" + key + ")", where).matches_whole(module)) continue;
    if (value && *value != candidate)
      fail_input("{}: two keys match {} and say {} and {}", where, module, *value, candidate);
    value = candidate;
  }
  return value.value_or(otherwise);
}

}  // namespace

bool is_target(const AdapterConfig& config, std::string_view module) {
  if (is_excluded(config, module)) return false;
  if (config.target_pattern) return Pattern(*config.target_pattern, "target_modules").matches_whole(module);
  if (!is_target(config.target_modules, module)) return false;
  const bool named_in_full = std::ranges::find(config.target_modules, module) != config.target_modules.end();
  if (config.layers_to_transform.empty() || named_in_full) return true;
  const std::optional<std::int64_t> layer = layer_of(config, module);
  return layer && std::ranges::find(config.layers_to_transform, *layer) != config.layers_to_transform.end();
}

LoraModule lora_module(const AdapterConfig& config, std::string_view module) {
  const std::int64_t r = value_of(config.rank_pattern, module, "rank_pattern", config.r);
  const double alpha = value_of(config.alpha_pattern, module, "alpha_pattern", config.lora_alpha);
  const auto rank = static_cast<double>(r);
  return {static_cast<int>(r), config.use_rslora ? alpha / std::sqrt(rank) * rank : alpha};
}

LoraOptions lora_options(const AdapterConfig& config, const ModelConfig& model) {
  if (model.tie_word_embeddings && !config.modules_to_save.empty()) {
    fail_input(
        "modules_to_save: this model's embedding and output head are one table (tie_word_embeddings), which cannot be "
        "trained here; leave modules_to_save out, or put an adapter that has them into the model by ./qshard merge");
  }
  LoraOptions options;
  options.r = static_cast<int>(config.r);
  options.alpha = config.scaling() * static_cast<double>(config.r);
  options.dropout = config.lora_dropout;
  options.use_dora = config.use_dora;
  options.lora_bias = config.lora_bias;
  options.modules_to_save = config.modules_to_save;
  const auto* start = std::get_if<std::string>(&config.init_lora_weights);
  options.start = start != nullptr && *start == "gaussian" ? LoraStart::gaussian : LoraStart::uniform;
  const bool by_name = !config.target_pattern && config.exclude_modules.empty() && !config.exclude_pattern &&
                       config.layers_to_transform.empty();
  options.target_modules = by_name ? config.target_modules : std::vector<std::string>();
  for (const LinearModule& linear : linear_modules(model)) {
    if (!is_target(config, linear.name)) continue;
    if (!by_name) options.target_modules.push_back(linear.name);
    const LoraModule module = lora_module(config, linear.name);
    if (module.r != options.r || module.alpha != options.alpha) options.modules[linear.name] = module;
  }
  return options;
}

}  // namespace qshard
