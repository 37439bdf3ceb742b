#include "core/formats/hf_config.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/hf_family.h"
#include "core/formats/hf_rope_config.h"

namespace qshard {
namespace {

constexpr std::int64_t kLargestSize = std::numeric_limits<std::int32_t>::max();
// A thousand times the largest models there are. Within these bounds no number of bytes of weights leaves 64 bits.
constexpr std::int64_t kMostLayers = 100'000;
constexpr double kMostParameters = 1e15;

std::int64_t size_field(const JsonObject& fields, std::string_view key) {
  const std::int64_t size = fields.integer_at_least(key, 1);
  if (size > kLargestSize) fail_input("{}: {} is too large", fields.where(key), size);
  return size;
}

std::int64_t size_field(const JsonObject& fields, std::string_view key, std::int64_t otherwise) {
  return fields.has(key) ? size_field(fields, key) : otherwise;
}

double positive(const JsonObject& fields, std::string_view key) {
  const double value = fields.number(key);
  if (!(value > 0)) fail_input("{}: must be positive, but is {}", fields.where(key), value);
  return value;
}

void check_activation(const JsonObject& fields) {
  if (fields.has("hidden_act") && fields.string("hidden_act") != "silu") {
    fail_input("{}: \"{}\" is not supported; known: silu", fields.where("hidden_act"), fields.string("hidden_act"));
  }
}

// A key that is not there takes the family's value, one that is null the value that follows from the other sizes.
std::int64_t derived_size(const JsonObject& fields, std::string_view key, std::optional<std::int64_t> of_family,
                          std::int64_t derived) {
  if (fields.has(key)) return size_field(fields, key);
  return fields.value().contains(key) ? derived : of_family.value_or(derived);
}

void read_sizes(const JsonObject& fields, ModelConfig& config) {
  const FamilyDefaults defaults = family_defaults(config.family);
  config.hidden_size = size_field(fields, "hidden_size");
  config.intermediate_size = size_field(fields, "intermediate_size");
  config.num_hidden_layers = size_field(fields, "num_hidden_layers");
  config.num_attention_heads = size_field(fields, "num_attention_heads");
  config.num_key_value_heads =
      derived_size(fields, "num_key_value_heads", defaults.num_key_value_heads, config.num_attention_heads);
  config.vocab_size = size_field(fields, "vocab_size");
  config.max_position_embeddings = size_field(fields, "max_position_embeddings", defaults.max_position_embeddings);
  config.rms_norm_eps = fields.has("rms_norm_eps") ? positive(fields, "rms_norm_eps") : 1e-6;
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    fail_input("{}: {} does not divide the {} attention heads", fields.where("num_key_value_heads"),
               config.num_key_value_heads, config.num_attention_heads);
  }
  const std::int64_t quotient = config.hidden_size / config.num_attention_heads;
  config.head_dim = derived_size(fields, "head_dim", defaults.head_dim, quotient);
  const bool is_quotient = !fields.has("head_dim") && config.head_dim == quotient;
  if (is_quotient && config.hidden_size % config.num_attention_heads != 0) {
    fail_input("{}: {} is not a multiple of the {} attention heads, and head_dim is missing",
               fields.where("hidden_size"), config.hidden_size, config.num_attention_heads);
  }
  if (config.head_dim % 2 != 0) fail_input("{}: {} is odd", fields.where("head_dim"), config.head_dim);
}

/// Products of sizes are formed in 64 bits everywhere else.
void check_countable(const JsonObject& fields, const ModelConfig& config) {
  if (config.num_hidden_layers > kMostLayers) {
    fail_input("{}: {} are too many; {} are the most", fields.where("num_hidden_layers"), config.num_hidden_layers,
               kMostLayers);
  }
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto heads = static_cast<double>(config.num_attention_heads + config.num_key_value_heads);
  const double layer =
      hidden * (2 * heads * static_cast<double>(config.head_dim) + 3 * static_cast<double>(config.intermediate_size));
  const double all =
      static_cast<double>(config.num_hidden_layers) * layer + 2 * hidden * static_cast<double>(config.vocab_size);
  if (!(all <= kMostParameters)) {
    fail_input("{}: the model would have {:.3g} parameters; {:.3g} are the most", fields.where("hidden_size"), all,
               kMostParameters);
  }
}

// A token id; some checkpoints write -1 for "none".
std::optional<std::int64_t> token_id(const JsonObject& fields, std::string_view key) {
  if (!fields.has(key)) return std::nullopt;
  const std::int64_t id = fields.integer(key);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

void read_tokens(const JsonObject& fields, ModelConfig& config) {
  config.bos_token_id = token_id(fields, "bos_token_id");
  config.pad_token_id = token_id(fields, "pad_token_id");
  if (fields.has("eos_token_id") && fields.value().at("eos_token_id").is_array()) {
    config.eos_token_ids = fields.integers("eos_token_id");
  } else if (const auto id = token_id(fields, "eos_token_id")) {
    config.eos_token_ids = {*id};
  }
}

void check_dropout(const JsonObject& fields) {
  if (fields.has("attention_dropout") && fields.number("attention_dropout") != 0) {
    fail_input("{}: {} is not supported, attention is computed without dropout; set it to 0",
               fields.where("attention_dropout"), fields.number("attention_dropout"));
  }
}

void read_quantization(const JsonObject& fields, ModelConfig& config) {
  if (!fields.has("quantization_config")) return;
  const JsonObject quantization = fields.object("quantization_config");
  const std::string& method = quantization.string("quant_method");
  const bool in_4bit = quantization.has("load_in_4bit") && quantization.boolean("load_in_4bit");
  if (method != "bitsandbytes" || !in_4bit) {
    fail_input("{}: \"{}\"{} is not supported; known: bitsandbytes with load_in_4bit",
               quantization.where("quant_method"), method, in_4bit ? "" : " without load_in_4bit");
  }
  if (quantization.has("load_in_8bit") && quantization.boolean("load_in_8bit")) {
    fail_input("{}: true contradicts load_in_4bit; 8-bit weights are not supported",
               quantization.where("load_in_8bit"));
  }
  config.prequantized_4bit = true;
}

void check_directory(const std::filesystem::path& directory) {
  const std::string name = directory.string();
  std::error_code ignored;
  const bool is_hub_name = std::ranges::count(name, '/') == 1 && name.front() != '/' && name.front() != '.';
  if (!is_hub_name || std::filesystem::exists(directory, ignored)) return;
  fail_input("{}: there is no such directory; if it is a name on the Hugging Face hub: hf download {} --local-dir {}",
             name, name, name);
}

}  // namespace

ModelConfig parse_hf_config(std::string_view text, std::string_view where) {
  ModelConfig config;
  config.text = text;
  const Json json = parse_json(text, where);
  const JsonObject fields(json, std::string(where));
  config.family = read_family(fields);
  check_activation(fields);
  check_dropout(fields);
  read_sizes(fields, config);
  check_countable(fields, config);
  read_biases_and_norms(fields, config);
  read_sliding_window(fields, config);
  config.rope = read_rope_config(fields, config.max_position_embeddings);
  read_tokens(fields, config);
  read_quantization(fields, config);
  config.tie_word_embeddings = fields.has("tie_word_embeddings") && fields.boolean("tie_word_embeddings");
  const std::string_view dtype_key = fields.has("dtype") ? "dtype" : "torch_dtype";
  if (fields.has(dtype_key)) {
    config.dtype = parse_torch_name(fields.string(dtype_key), fields.where(dtype_key));
    if (!is_floating(*config.dtype)) fail_input("{}: must be a floating-point dtype", fields.where(dtype_key));
  }
  return config;
}

ModelConfig read_hf_config(const std::filesystem::path& path) {
  check_directory(path.parent_path());
  return parse_hf_config(read_file(path), path.string());
}

ModelConfig read_any_hf_config(const std::filesystem::path& path) {
  check_directory(path.parent_path());
  ModelConfig config;
  config.text = read_file(path);
  const Json json = parse_json(config.text, path.string());
  const JsonObject fields(json, path.string());
  if (find_family(fields.string("model_type"))) return parse_hf_config(config.text, path.string());
  read_quantization(fields, config);
  return config;
}

bool can_be_run(const ModelConfig& config) {
  return config.num_hidden_layers > 0;
}

std::string config_text(const ModelConfig& config) {
  Json json = parse_json(config.text, "config.json");
  json.erase("quantization_config");
  return python_json(json, 2) + "\n";
}

std::string config_text(const ModelConfig& config, const QuantizationOptions& quantization, DType compute_dtype) {
  Json json = parse_json(config.text, "config.json");
  json["quantization_config"] = {{"_load_in_4bit", true},
                                 {"_load_in_8bit", false},
                                 {"bnb_4bit_compute_dtype", torch_name(compute_dtype)},
                                 {"bnb_4bit_quant_storage", torch_name(quantization.quant_storage)},
                                 {"bnb_4bit_quant_type", to_string(quantization.quant_type)},
                                 {"bnb_4bit_use_double_quant", quantization.double_quant},
                                 {"llm_int8_enable_fp32_cpu_offload", false},
                                 {"llm_int8_has_fp16_weight", false},
                                 {"llm_int8_skip_modules", nullptr},
                                 {"llm_int8_threshold", 6.0},
                                 {"load_in_4bit", true},
                                 {"load_in_8bit", false},
                                 {"quant_method", "bitsandbytes"}};
  return python_json(json, 2) + "\n";
}

}  // namespace qshard
