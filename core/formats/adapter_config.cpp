#include "core/formats/adapter_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/model/lora_targets.h"

namespace qshard {
namespace {

constexpr double kLargestExactInteger = 9007199254740992.0;  // 2^53

// Keys that change what an adapter computes in a way that is not implemented here, unless null, false or empty.
constexpr std::array<std::string_view, 11> kUnsupported{"alora_invocation_tokens",
                                                        "arrow_config",
                                                        "fan_in_fan_out",
                                                        "kasa_config",
                                                        "layer_replication",
                                                        "monteclora_config",
                                                        "target_parameters",
                                                        "trainable_token_indices",
                                                        "use_bdlora",
                                                        "use_qalora",
                                                        "velora_config"};

// Keys that are read.
constexpr std::array<std::string_view, 21> kUsed{"peft_type",       "bias",           "r",
                                                 "lora_alpha",      "lora_dropout",   "target_modules",
                                                 "use_rslora",      "rank_pattern",   "alpha_pattern",
                                                 "exclude_modules", "layers_pattern", "layers_to_transform",
                                                 "task_type",       "revision",       "base_model_name_or_path",
                                                 "inference_mode",  "peft_version",   "init_lora_weights",
                                                 "use_dora",        "lora_bias",      "modules_to_save"};

// Keys that change nothing for an adapter that is there: how it was started, or settings of what is refused or absent.
constexpr std::array<std::string_view, 10> kWithoutEffect{
    "auto_mapping",   "corda_config",    "eva_config",    "ensure_weight_tying", "loftq_config",
    "lora_ga_config", "megatron_config", "megatron_core", "runtime_config",      "qalora_group_size"};

bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_structured() || value.is_string()) && value.empty());
}

void check_supported(const JsonObject& fields) {
  if (fields.string("peft_type") != "LORA") {
    fail_input("{}: \"{}\" is not supported; known: LORA", fields.where("peft_type"), fields.string("peft_type"));
  }
  for (const std::string_view key : kUnsupported) {
    if (fields.has(key) && !is_off(fields.value().at(std::string(key)))) {
      fail_input("{}: an adapter with this is not supported", fields.where(key));
    }
  }
  for (const auto& item : fields.value().items()) {
    const auto in = [&](const auto& keys) { return std::ranges::find(keys, item.key()) != keys.end(); };
    if (in(kUsed) || in(kUnsupported) || in(kWithoutEffect) || is_off(item.value())) continue;
    fail_input("{}: the key is unknown, so what it changes is too; remove it if it changes nothing",
               fields.where(item.key()));
  }
}

// One text or a list of them.
std::vector<std::string> texts(const JsonObject& fields, std::string_view key) {
  if (!fields.has(key)) return {};
  if (fields.value().at(std::string(key)).is_string()) return {fields.string(key)};
  return fields.strings(key);
}

void read_layers(const JsonObject& fields, AdapterConfig& config) {
  config.layers_pattern = texts(fields, "layers_pattern");
  if (!fields.has("layers_to_transform")) return;
  const bool is_one = fields.value().at("layers_to_transform").is_number();
  config.layers_to_transform = is_one ? std::vector<std::int64_t>{fields.integer("layers_to_transform")}
                                      : fields.integers("layers_to_transform");
}

// PEFT refuses these combinations, too.
void check_layers(const JsonObject& fields, const AdapterConfig& config) {
  if (!config.layers_pattern.empty() && config.layers_to_transform.empty()) {
    fail_input("{}: it chooses no layer without layers_to_transform; leave it out or name the layers",
               fields.where("layers_pattern"));
  }
  const bool is_one_text = fields.value().at("target_modules").is_string();
  if (is_one_text && !config.layers_to_transform.empty()) {
    fail_input("{}: it goes with a list of target_modules, not with one text", fields.where("layers_to_transform"));
  }
}

void read_patterns(const JsonObject& fields, AdapterConfig& config) {
  if (fields.has("rank_pattern")) {
    const JsonObject ranks = fields.object("rank_pattern");
    for (const auto& item : ranks.value().items()) {
      config.rank_pattern[item.key()] = ranks.integer_at_least(item.key(), 1);
      if (config.rank_pattern[item.key()] > std::numeric_limits<std::int32_t>::max()) {
        fail_input("{}: {} is too large", ranks.where(item.key()), config.rank_pattern[item.key()]);
      }
    }
  }
  if (fields.has("alpha_pattern")) {
    const JsonObject alphas = fields.object("alpha_pattern");
    for (const auto& item : alphas.value().items()) config.alpha_pattern[item.key()] = alphas.number(item.key());
  }
}

// PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA take their start out of the base weights, again at every load.
void read_start(const JsonObject& fields, AdapterConfig& config) {
  if (!fields.has("init_lora_weights")) return;
  const Json& value = fields.value().at("init_lora_weights");
  if (value.is_boolean()) {
    config.init_lora_weights = value.get<bool>();
    return;
  }
  const std::string& name = fields.string("init_lora_weights");
  if (name != "gaussian" && name != "eva" && name != "orthogonal") {
    fail_input(
        "{}: \"{}\" changes the base weights, which is not done here; save the adapter as plain LoRA by PEFT's "
        "save_pretrained(..., path_initial_model_for_weight_conversion=DIRECTORY OF THE START)",
        fields.where("init_lora_weights"), name);
  }
  config.init_lora_weights = name;
}

void read_bias(const JsonObject& fields, AdapterConfig& config) {
  if (!fields.has("bias")) return;
  config.bias = fields.string("bias");
  if (config.bias != "none" && config.bias != "all" && config.bias != "lora_only") {
    fail_input("{}: \"{}\" is not one of none, all and lora_only", fields.where("bias"), config.bias);
  }
}

void read_kind(const JsonObject& fields, AdapterConfig& config) {
  config.use_dora = fields.has("use_dora") && fields.boolean("use_dora");
  config.lora_bias = fields.has("lora_bias") && fields.boolean("lora_bias");
  if (config.use_dora && config.lora_bias) {
    fail_input("{}: a bias does not go with use_dora, in PEFT neither; leave one of the two out",
               fields.where("lora_bias"));
  }
  config.modules_to_save = texts(fields, "modules_to_save");
  for (std::string& name : config.modules_to_save) {
    if (name == "model.embed_tokens") name = "embed_tokens";
    if (name == "embed_tokens" || name == "lm_head") continue;
    fail_input("{}: \"{}\" is not one of embed_tokens and lm_head, which alone are trained whole here",
               fields.where("modules_to_save"), name);
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
  read_bias(fields, config);
  read_layers(fields, config);
  check_layers(fields, config);
  read_patterns(fields, config);
  read_start(fields, config);
  read_kind(fields, config);
  if (fields.has("exclude_modules") && fields.value().at("exclude_modules").is_string()) {
    const std::string& pattern = fields.string("exclude_modules");
    if (!pattern.empty()) config.exclude_pattern = pattern;
  } else {
    config.exclude_modules = texts(fields, "exclude_modules");
  }
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
  json["bias"] = config.bias;
  for (const auto& [pattern, rank] : config.rank_pattern) json["rank_pattern"][pattern] = rank;
  for (const auto& [pattern, alpha] : config.alpha_pattern) json["alpha_pattern"][pattern] = number_json(alpha);
  if (!config.layers_to_transform.empty()) json["layers_to_transform"] = config.layers_to_transform;
  json["use_dora"] = config.use_dora;
  json["lora_bias"] = config.lora_bias;
  if (!config.modules_to_save.empty()) json["modules_to_save"] = config.modules_to_save;
  if (!config.layers_pattern.empty()) json["layers_pattern"] = config.layers_pattern;
  if (!config.exclude_modules.empty()) json["exclude_modules"] = config.exclude_modules;
  if (config.exclude_pattern) json["exclude_modules"] = *config.exclude_pattern;
  std::visit([&](const auto& start) { json["init_lora_weights"] = start; }, config.init_lora_weights);
  return python_json(json, 2);
}

}  // namespace qshard
