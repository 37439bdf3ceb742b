#include "core/training/run_settings.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>

#include "core/run/run_options.h"
#include "core/training/moment_arrays.h"

namespace qshard {
namespace {

constexpr std::string_view kBaseWeights = "base_weights";
constexpr std::array kAdjustable{"training.learning_rate", "training.lr_scheduler_type", "training.warmup_steps",
                                 "training.warmup_ratio",  "training.weight_decay",      "training.adam_beta1",
                                 "training.adam_beta2",    "training.adam_epsilon",      "training.max_grad_norm"};
constexpr std::array kQuantization{"quantization.load_in_4bit", "quantization.bnb_4bit_quant_type",
                                   "quantization.blocksize", "quantization.bnb_4bit_use_double_quant"};

template <typename Keys>
void add_options(const Keys& keys, const RunConfig& config, Json& settings) {
  for (const char* key : keys) settings[key] = find_run_option(key)->get(config);
}

/// All that adapter_config.json says, but for what is no part of the computation.
void add_adapter(const AdapterConfig& adapter, Json& settings) {
  const Json values = parse_json(adapter_config_text(adapter), "adapter_config.json");
  for (const auto& item : values.items()) {
    const std::string& key = item.key();
    if (key == "base_model_name_or_path" || key == "lora_dropout" || key == "inference_mode" ||
        item.value().is_null()) {
      continue;
    }
    Json value = item.value();
    if (value.is_array()) std::sort(value.begin(), value.end());
    settings["lora." + key] = value;
  }
}

}  // namespace

RunSettings run_settings(const RunConfig& config, const EngineOptions& options, const AdapterConfig& adapter,
                         std::string_view base_weights) {
  RunSettings settings;
  settings.fixed[std::string(kBaseWeights)] = base_weights;
  settings.fixed["dtype"] = torch_name(options.dtype);
  settings.fixed["quantization.bnb_4bit_compute_dtype"] = torch_name(options.compute_dtype);
  settings.fixed["training.optim_moments_dtype"] = moment_kind(moment_dtype(options.optimizer.moments, options.dtype));
  add_options(kQuantization, config, settings.fixed);
  add_adapter(adapter, settings.fixed);
  add_options(kAdjustable, config, settings.adjustable);
  settings.adjustable["lora.lora_dropout"] = options.lora.dropout;
  return settings;
}

std::vector<std::string> differing_settings(const Json& saved, const Json& now) {
  std::set<std::string> names;
  for (const Json* side : {&saved, &now}) {
    for (const auto& item : side->items()) names.insert(item.key());
  }
  const auto text = [](const Json& settings, const std::string& name) {
    const auto found = settings.find(name);
    if (found == settings.end()) return std::string("not given");
    return found->is_string() ? found->get<std::string>() : found->dump();
  };
  std::vector<std::string> lines;
  for (const std::string& name : names) {
    const std::string before = text(saved, name);
    const std::string after = text(now, name);
    const std::string_view shown =
        name == kBaseWeights ? "the hash of the weights in model_name_or_path" : std::string_view(name);
    if (before != after) lines.push_back(fmt::format("{} was {} and is now {}", shown, before, after));
  }
  return lines;
}

}  // namespace qshard
