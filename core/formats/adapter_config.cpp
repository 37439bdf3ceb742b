#include "core/formats/adapter_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <regex>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/model/lora_targets.h"

namespace qshard {
namespace {

constexpr std::size_t kLongestPattern = 1000;
constexpr double kLargestExactInteger = 9007199254740992.0;  // 2^53

// Keys that change what an adapter computes in a way that is not implemented here, unless null, false or empty.
constexpr std::array<std::string_view, 18> kUnsupported{"alora_invocation_tokens",
                                                        "alpha_pattern",
                                                        "arrow_config",
                                                        "exclude_modules",
                                                        "fan_in_fan_out",
                                                        "kasa_config",
                                                        "layer_replication",
                                                        "layers_pattern",
                                                        "layers_to_transform",
                                                        "lora_bias",
                                                        "modules_to_save",
                                                        "monteclora_config",
                                                        "rank_pattern",
                                                        "target_parameters",
                                                        "trainable_token_indices",
                                                        "use_bdlora",
                                                        "use_dora",
                                                        "use_qalora"};

bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_structured() || value.is_string()) && value.empty());
}

void check_supported(const JsonObject& fields) {
  if (fields.string("peft_type") != "LORA") {
    fail_input("{}: \"{}\" is not supported; known: LORA", fields.where("peft_type"), fields.string("peft_type"));
  }
  if (fields.has("bias") && fields.string("bias") != "none") {
    fail_input("{}: \"{}\" is not supported; known: none", fields.where("bias"), fields.string("bias"));
  }
  for (const std::string_view key : kUnsupported) {
    if (fields.has(key) && !is_off(fields.value().at(std::string(key)))) {
      fail_input("{}: an adapter with this is not supported", fields.where(key));
    }
  }
}

void read_targets(const JsonObject& fields, AdapterConfig& config) {
  if (!fields.has("target_modules")) fail_input("{}: missing", fields.where("target_modules"));
  if (!fields.value().at("target_modules").is_string()) {
    config.target_modules = fields.strings("target_modules");
    return;
  }
  const std::string& text = fields.string("target_modules");
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (lower == kAllLinear) {
    config.target_modules = {std::string(kAllLinear)};
  } else {
    config.target_pattern = text;
  }
}

std::optional<std::string> optional_string(const JsonObject& fields, std::string_view key) {
  return fields.has(key) ? std::optional(fields.string(key)) : std::nullopt;
}

Json number_json(double value) {
  const bool integral = value == std::floor(value) && std::abs(value) <= kLargestExactInteger;
  return integral ? Json(static_cast<std::int64_t>(value)) : Json(value);
}

Json targets_json(const AdapterConfig& config) {
  if (config.target_pattern) return *config.target_pattern;
  if (config.target_modules == std::vector<std::string>{std::string(kAllLinear)}) return kAllLinear;
  return config.target_modules;
}

template <typename T>
Json optional_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// Every field of PEFT 0.21's LoraConfig with its default.
Json peft_defaults() {
  Json json = {{"bias", "none"},
               {"ensure_weight_tying", false},
               {"fan_in_fan_out", false},
               {"inference_mode", true},
               {"init_lora_weights", true},
               {"lora_bias", false},
               {"peft_type", "LORA"},
               {"megatron_core", "megatron.core"},
               {"peft_version", "0.21.0"},
               {"qalora_group_size", 16},
               {"use_dora", false},
               {"use_qalora", false}};
  for (const char* key : {"alpha_pattern", "loftq_config", "rank_pattern"}) json[key] = Json::object();
  for (const char* key :
       {"alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "eva_config", "exclude_modules",
        "kasa_config", "layer_replication", "layers_pattern", "layers_to_transform", "lora_ga_config",
        "megatron_config", "modules_to_save", "monteclora_config", "revision", "target_parameters",
        "trainable_token_indices", "use_bdlora", "velora_config"}) {
    json[key] = nullptr;
  }
  return json;
}

}  // namespace

double AdapterConfig::scaling() const {
  const auto rank = static_cast<double>(r);
  return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

AdapterConfig parse_adapter_config(std::string_view text, std::string_view where) {
  const Json json = parse_json(text, where);
  const JsonObject fields(json, std::string(where));
  check_supported(fields);
  AdapterConfig config;
  if (fields.has("r")) config.r = fields.integer_at_least("r", 1);
  if (config.r > std::numeric_limits<std::int32_t>::max())
    fail_input("{}: {} is too large", fields.where("r"), config.r);
  if (fields.has("lora_alpha")) config.lora_alpha = fields.number("lora_alpha");
  if (fields.has("lora_dropout")) config.lora_dropout = fields.number("lora_dropout");
  if (!(config.lora_dropout >= 0 && config.lora_dropout < 1)) {
    fail_input("{}: must be at least 0 and less than 1, but is {}", fields.where("lora_dropout"), config.lora_dropout);
  }
  read_targets(fields, config);
  config.base_model_name_or_path = optional_string(fields, "base_model_name_or_path");
  config.task_type = optional_string(fields, "task_type");
  config.use_rslora = fields.has("use_rslora") && fields.boolean("use_rslora");
  return config;
}

std::string adapter_config_text(const AdapterConfig& config) {
  Json json = peft_defaults();
  json["r"] = config.r;
  json["lora_alpha"] = number_json(config.lora_alpha);
  json["lora_dropout"] = config.lora_dropout;
  json["target_modules"] = targets_json(config);
  json["base_model_name_or_path"] = optional_json(config.base_model_name_or_path);
  json["task_type"] = optional_json(config.task_type);
  json["use_rslora"] = config.use_rslora;
  return python_json(json, 2);
}

bool is_target(const AdapterConfig& config, std::string_view module) {
  if (!config.target_pattern) return is_target(config.target_modules, module);
  const std::string& pattern = *config.target_pattern;
  if (pattern.size() > kLongestPattern) {
    fail_input("target_modules: a pattern of {} characters is too long; use at most {}", pattern.size(),
               kLongestPattern);
  }
  try {
    return std::regex_match(module.begin(), module.end(), std::regex(pattern));
  } catch (const std::regex_error& error) {
    fail_input("target_modules: \"{}\" cannot be used as a regular expression: {}", pattern, error.what());
  }
}

}  // namespace qshard
