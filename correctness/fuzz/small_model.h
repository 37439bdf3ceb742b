#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/base/atomic_file.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_config.h"
#include "core/formats/safetensors.h"
#include "core/model/model_parameters.h"
#include "core/run/engine_options.h"

namespace qshard::fuzz {

/// The smallest model that has everything: one layer of 8 features, four tokens.
inline ModelConfig small_config() {
  return parse_hf_config(R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
 "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
 "vocab_size": 4, "max_position_embeddings": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
 "tie_word_embeddings": false, "torch_dtype": "float32"})",
                         "small config");
}

inline EngineOptions small_options() {
  EngineOptions options;
  options.quantization.load_in_4bit = false;
  options.lora.r = 1;
  options.lora.target_modules = {"all-linear"};
  options.dtype = DType::f32;
  return options;
}

/// A weight whose codes count up; its statistics are ones.
inline Weight4bit small_weight(const Shape& shape, bool nested) {
  QuantizationOptions quantization;
  quantization.double_quant = nested;
  Weight4bit weight;
  weight.info = planned_info(quantization, DType::f32, shape);
  const std::int64_t blocks = block_count(element_count(shape), weight.info.blocksize);
  weight.codes.resize(static_cast<std::size_t>(packed_bytes(element_count(shape))));
  for (std::size_t i = 0; i < weight.codes.size(); ++i) weight.codes[i] = static_cast<std::uint8_t>(i * 37);
  if (nested) {
    weight.absmax_codes.assign(static_cast<std::size_t>(blocks), 200);
    weight.nested_absmax.assign(1, 1.0F);
  } else {
    weight.absmax.assign(static_cast<std::size_t>(blocks), 1.0F);
  }
  return weight;
}

/// Writes the small model's tensors to `path`, its linear layers in 4 bits where `in_4bit`.
inline void write_small_model(const std::filesystem::path& path, bool in_4bit, bool nested) {
  const auto none = [](const std::string&, const Shape&) { return std::optional<Weight4bitInfo>(); };
  const EngineOptions options = small_options();
  std::vector<std::pair<std::string, TensorView>> views;
  std::vector<Tensor> kept;
  std::vector<Weight4bit> weights;
  kept.reserve(100);
  weights.reserve(100);
  for (const ModelStage& stage :
       list_model_stages(small_config(), options.quantization, options.lora, options.dtype, none)) {
    for (const Parameter& parameter : stage.parameters) {
      if (parameter.kind == ParameterKind::trained) continue;
      if (in_4bit && parameter.role == ParameterRole::weight) {
        weights.push_back(small_weight(parameter.shape, nested));
        append_weight4bit(parameter.name, weights.back().view(), views, kept);
        continue;
      }
      std::vector<float> values(static_cast<std::size_t>(element_count(parameter.shape)));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) / 7 - 0.4F;
      kept.push_back(from_floats(values, DType::f32, parameter.shape));
      views.emplace_back(parameter.name, kept.back().view());
    }
  }
  write_safetensors(path, std::move(views));
}

}  // namespace qshard::fuzz
