#include "core/formats/hf_family.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/error.h"

namespace qshard {
namespace {

constexpr std::array kFamilies{ModelFamily::llama, ModelFamily::mistral, ModelFamily::qwen2, ModelFamily::qwen3};

constexpr std::int64_t kLargestWindow = std::numeric_limits<std::int32_t>::max();

bool flag(const JsonObject& fields, std::string_view key) {
  return fields.has(key) && fields.boolean(key);
}

std::optional<std::int64_t> window_size(const JsonObject& fields, ModelFamily family) {
  if (!fields.value().contains("sliding_window")) return family_defaults(family).sliding_window;
  if (!fields.has("sliding_window")) return std::nullopt;
  const std::int64_t window = fields.integer_at_least("sliding_window", 1);
  if (window > kLargestWindow) fail_input("{}: {} is too large", fields.where("sliding_window"), window);
  return window;
}

// Which layers layer_types gives a window.
std::vector<bool> windowed_layers(const JsonObject& fields, std::int64_t layers) {
  const std::vector<std::string> types = fields.strings("layer_types");
  if (std::ssize(types) != layers) {
    fail_input("{}: names {} layers, but the model has {}", fields.where("layer_types"), types.size(), layers);
  }
  std::vector<bool> windowed;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      fail_input("{}: \"{}\" is not supported; known: full_attention, sliding_attention", fields.where("layer_types"),
                 type);
    }
    windowed.push_back(type == "sliding_attention");
  }
  return windowed;
}

}  // namespace

FamilyDefaults family_defaults(ModelFamily family) {
  switch (family) {
    case ModelFamily::llama:
      return {{}, {}, 2048, {}};
    case ModelFamily::mistral:
      return {8, {}, 131072, 4096};
    case ModelFamily::qwen2:
      return {32, {}, 32768, 4096};
    case ModelFamily::qwen3:
      return {32, 128, 32768, 4096};
  }
  fail(ExitCode::check_failed, "a model family without defaults");
}

std::optional<ModelFamily> find_family(std::string_view model_type) {
  for (const ModelFamily family : kFamilies) {
    if (model_type == to_string(family)) return family;
  }
  return std::nullopt;
}

ModelFamily read_family(const JsonObject& fields) {
  const std::string& model_type = fields.string("model_type");
  if (const auto family = find_family(model_type)) return *family;
  std::vector<std::string_view> known;
  for (const ModelFamily family : kFamilies) known.push_back(to_string(family));
  fail_input("{}: \"{}\" is not supported; known: {}", fields.where("model_type"), model_type, fmt::join(known, ", "));
}

void read_biases_and_norms(const JsonObject& fields, ModelConfig& config) {
  const bool llama = config.family == ModelFamily::llama;
  const bool qwen3 = config.family == ModelFamily::qwen3;
  config.o_bias = (llama || qwen3) && flag(fields, "attention_bias");
  config.qkv_bias = config.o_bias || config.family == ModelFamily::qwen2;
  config.mlp_bias = llama && flag(fields, "mlp_bias");
  config.qk_norm = qwen3;
}

void read_sliding_window(const JsonObject& fields, ModelConfig& config) {
  if (config.family == ModelFamily::llama) return;
  const std::optional<std::int64_t> window = window_size(fields, config.family);
  if (config.family == ModelFamily::mistral) {
    config.sliding_window = window.value_or(0);
    return;
  }
  if (!window || !flag(fields, "use_sliding_window")) return;
  const std::int64_t layers = config.num_hidden_layers;
  if (fields.has("layer_types")) {
    config.layer_has_window = windowed_layers(fields, layers);
  } else {
    const std::int64_t first = fields.has("max_window_layers") ? fields.integer_at_least("max_window_layers", 0) : 28;
    for (std::int64_t layer = 0; layer < layers; ++layer) config.layer_has_window.push_back(layer >= first);
  }
  const bool any = std::ranges::find(config.layer_has_window, true) != config.layer_has_window.end();
  config.sliding_window = any ? *window : 0;
}

}  // namespace qshard
