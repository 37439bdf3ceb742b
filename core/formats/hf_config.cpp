#include "core/formats/hf_config.h"

#include <limits>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/json.h"

namespace qshard {
namespace {

constexpr std::int64_t kLargestSize = std::numeric_limits<std::int32_t>::max();

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

// The configuration of a model without one of these fields is that of a model with it off.
void must_be_off(const JsonObject& fields, std::string_view key) {
  if (fields.has(key) && fields.boolean(key)) fail_input("{}: biases are not supported", fields.where(key));
}

void check_kind(const JsonObject& fields) {
  const std::string& model_type = fields.string("model_type");
  if (model_type != "llama") {
    fail_input("{}: \"{}\" is not supported; known: llama", fields.where("model_type"), model_type);
  }
  if (fields.has("hidden_act") && fields.string("hidden_act") != "silu") {
    fail_input("{}: \"{}\" is not supported; known: silu", fields.where("hidden_act"), fields.string("hidden_act"));
  }
  must_be_off(fields, "attention_bias");
  must_be_off(fields, "mlp_bias");
}

void read_sizes(const JsonObject& fields, ModelConfig& config) {
  config.hidden_size = size_field(fields, "hidden_size");
  config.intermediate_size = size_field(fields, "intermediate_size");
  config.num_hidden_layers = size_field(fields, "num_hidden_layers");
  config.num_attention_heads = size_field(fields, "num_attention_heads");
  config.num_key_value_heads = size_field(fields, "num_key_value_heads", config.num_attention_heads);
  config.vocab_size = size_field(fields, "vocab_size");
  config.max_position_embeddings = size_field(fields, "max_position_embeddings", 2048);
  config.rms_norm_eps = fields.has("rms_norm_eps") ? positive(fields, "rms_norm_eps") : 1e-6;
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    fail_input("{}: {} does not divide the {} attention heads", fields.where("num_key_value_heads"),
               config.num_key_value_heads, config.num_attention_heads);
  }
  const std::int64_t quotient = config.hidden_size / config.num_attention_heads;
  if (!fields.has("head_dim") && config.hidden_size % config.num_attention_heads != 0) {
    fail_input("{}: {} is not a multiple of the {} attention heads, and head_dim is missing",
               fields.where("hidden_size"), config.hidden_size, config.num_attention_heads);
  }
  config.head_dim = size_field(fields, "head_dim", quotient);
  if (config.head_dim % 2 != 0) fail_input("{}: {} is odd", fields.where("head_dim"), config.head_dim);
}

// `scaling` is rope_scaling, or the newer rope_parameters.
void read_rope_scaling(const JsonObject& scaling, ModelConfig& config) {
  const std::string_view key = scaling.has("rope_type") ? "rope_type" : "type";
  const std::string type = scaling.has(key) ? scaling.string(key) : "default";
  if (type == "default") return;
  if (type != "llama3") fail_input("{}: \"{}\" is not supported; known: default, llama3", scaling.where(key), type);
  Llama3RopeScaling llama3;
  llama3.factor = positive(scaling, "factor");
  llama3.low_freq_factor = positive(scaling, "low_freq_factor");
  llama3.high_freq_factor = positive(scaling, "high_freq_factor");
  llama3.original_max_position_embeddings = size_field(scaling, "original_max_position_embeddings");
  if (llama3.high_freq_factor <= llama3.low_freq_factor) {
    fail_input("{}: must be greater than low_freq_factor", scaling.where("high_freq_factor"));
  }
  config.rope_scaling = llama3;
}

void read_rope(const JsonObject& fields, ModelConfig& config) {
  config.rope_theta = fields.has("rope_theta") ? positive(fields, "rope_theta") : 10000.0;
  if (fields.has("rope_scaling")) read_rope_scaling(fields.object("rope_scaling"), config);
  if (fields.has("rope_parameters")) {
    const JsonObject parameters = fields.object("rope_parameters");
    if (parameters.has("rope_theta")) config.rope_theta = positive(parameters, "rope_theta");
    read_rope_scaling(parameters, config);
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

void read_quantization(const JsonObject& fields, ModelConfig& config) {
  if (!fields.has("quantization_config")) return;
  const JsonObject quantization = fields.object("quantization_config");
  const std::string& method = quantization.string("quant_method");
  const bool in_4bit = quantization.has("load_in_4bit") && quantization.boolean("load_in_4bit");
  if (method != "bitsandbytes" || !in_4bit) {
    fail_input("{}: \"{}\"{} is not supported; known: bitsandbytes with load_in_4bit",
               quantization.where("quant_method"), method, in_4bit ? "" : " without load_in_4bit");
  }
  config.prequantized_4bit = true;
}

}  // namespace

ModelConfig parse_hf_config(std::string_view text, std::string_view where) {
  ModelConfig config;
  config.text = text;
  const Json json = parse_json(text, where);
  const JsonObject fields(json, std::string(where));
  check_kind(fields);
  read_sizes(fields, config);
  read_rope(fields, config);
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
  return parse_hf_config(read_file(path), path.string());
}

std::string config_text(const ModelConfig& config, const std::optional<QuantizationConfig>& quantization) {
  Json json = parse_json(config.text, "config.json");
  json.erase("quantization_config");
  if (quantization) {
    json["quantization_config"] = {{"_load_in_4bit", true},
                                   {"_load_in_8bit", false},
                                   {"bnb_4bit_compute_dtype", torch_name(quantization->compute_dtype)},
                                   {"bnb_4bit_quant_storage", torch_name(quantization->quant_storage)},
                                   {"bnb_4bit_quant_type", to_string(quantization->quant_type)},
                                   {"bnb_4bit_use_double_quant", quantization->double_quant},
                                   {"llm_int8_enable_fp32_cpu_offload", false},
                                   {"llm_int8_has_fp16_weight", false},
                                   {"llm_int8_skip_modules", nullptr},
                                   {"llm_int8_threshold", 6.0},
                                   {"load_in_4bit", true},
                                   {"load_in_8bit", false},
                                   {"quant_method", "bitsandbytes"}};
  }
  return python_json(json, 2) + "\n";
}

}  // namespace qshard
