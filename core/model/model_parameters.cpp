#include "core/model/model_parameters.h"

#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/adapter_parameters.h"
#include "core/model/lora_targets.h"

namespace qshard {
namespace {

// Everything that belongs to one linear layer of a decoder layer.
class ModuleParameters {
 public:
  ModuleParameters(std::int64_t layer, const LinearModule& module, DType dtype, std::vector<Parameter>& list)
      : path_(module_path(layer, module.name)), module_(&module), dtype_(dtype), list_(&list) {}

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string weight_name() const { return path_ + ".weight"; }
  [[nodiscard]] Shape shape() const { return {module_->out, module_->in}; }

  void add_dense() { add(".weight", ParameterKind::dense, dtype_, shape(), ParameterRole::weight); }

  void add_codes_and_statistics(const Weight4bitInfo& info) {
    const std::int64_t elements = element_count(info.shape);
    const std::int64_t blocks = block_count(elements, info.blocksize);
    add(".weight", ParameterKind::codes, info.storage, storage_shape(elements, info.storage, weight_name()),
        ParameterRole::weight);
    if (info.nested) {
      add(".weight.nested_absmax", ParameterKind::statistics, DType::f32, {block_count(blocks, kNestedBlocksize)},
          ParameterRole::nested_absmax);
    }
    add(".weight.absmax", ParameterKind::statistics, info.nested ? DType::u8 : DType::f32, {blocks},
        ParameterRole::absmax);
  }

  void add_bias() { add(".bias", ParameterKind::dense, dtype_, {module_->out}, ParameterRole::bias); }

  void add_adapter(const LoraOptions& lora) {
    for (Parameter& parameter : adapter_parameters(lora, path_, *module_, dtype_))
      list_->push_back(std::move(parameter));
  }

 private:
  void add(std::string_view part, ParameterKind kind, DType dtype, Shape shape, ParameterRole role) {
    list_->push_back({path_ + std::string(part), kind, dtype, std::move(shape), role, module_->role});
  }

  std::string path_;
  const LinearModule* module_;
  DType dtype_;
  std::vector<Parameter>* list_;
};

void add_norms(std::int64_t layer, const ModelConfig& config, DType dtype, std::vector<Parameter>& list) {
  const auto add = [&](std::string_view norm, std::int64_t features, ParameterRole role) {
    list.push_back({module_path(layer, norm), ParameterKind::dense, dtype, {features}, role, {}});
  };
  add("input_layernorm.weight", config.hidden_size, ParameterRole::input_norm);
  add("post_attention_layernorm.weight", config.hidden_size, ParameterRole::post_attention_norm);
  if (config.qk_norm) {
    add("self_attn.q_norm.weight", config.head_dim, ParameterRole::query_norm);
    add("self_attn.k_norm.weight", config.head_dim, ParameterRole::key_norm);
  }
}

/// The one gate of 4-bit weights that a checkpoint holds: an engine makes its places for them here.
std::optional<Weight4bitInfo> held_info(const PrequantizedInfo& prequantized, const std::string& name,
                                        const Shape& shape) {
  std::optional<Weight4bitInfo> info = prequantized(name, shape);
  if (info && info->shape != shape) {
    fail_input("tensor \"{}\" is a 4-bit weight of shape {}, but config.json asks for {}", name, to_string(info->shape),
               to_string(shape));
  }
  return info;
}

ModelStage decoder_stage(std::int64_t layer, const ModelConfig& config, const QuantizationOptions& quantization,
                         const LoraOptions& lora, DType dtype, const PrequantizedInfo& prequantized) {
  ModelStage stage{fmt::format("model.layers.{}", layer), {}};
  add_norms(layer, config, dtype, stage.parameters);
  for (const LinearModule& module : layer_modules(config)) {
    ModuleParameters parameters(layer, module, dtype, stage.parameters);
    std::optional<Weight4bitInfo> info = held_info(prequantized, parameters.weight_name(), parameters.shape());
    if (!info && quantization.load_in_4bit) info = planned_info(quantization, dtype, parameters.shape());
    if (info) {
      parameters.add_codes_and_statistics(*info);
    } else {
      parameters.add_dense();
    }
    if (module.bias) parameters.add_bias();
    if (is_target(lora.target_modules, parameters.path())) parameters.add_adapter(lora);
  }
  return stage;
}

bool has_adapter(const std::vector<ModelStage>& stages) {
  for (const ModelStage& stage : stages) {
    for (const Parameter& parameter : stage.parameters) {
      if (parameter.role == ParameterRole::lora_a) return true;
    }
  }
  return false;
}

}  // namespace

Weight4bitInfo planned_info(const QuantizationOptions& options, DType dtype, const Shape& shape) {
  Weight4bitInfo info;
  info.quant_type = options.quant_type;
  info.blocksize = options.blocksize;
  info.dtype = dtype;
  info.storage = options.quant_storage;
  info.shape = shape;
  info.nested = options.double_quant;
  return info;
}

std::vector<ModelStage> list_model_stages(const ModelConfig& config, const QuantizationOptions& quantization,
                                          const LoraOptions& lora, DType dtype, const PrequantizedInfo& prequantized) {
  const Shape table{config.vocab_size, config.hidden_size};
  const auto kind = [](bool trained) { return trained ? ParameterKind::trained : ParameterKind::dense; };
  std::vector<ModelStage> stages{
      {"model.embed_tokens",
       {{"model.embed_tokens.weight", kind(lora.trains_embedding()), dtype, table, ParameterRole::embedding}}}};
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    stages.push_back(decoder_stage(layer, config, quantization, lora, dtype, prequantized));
  }
  ModelStage head{
      "lm_head", {{"model.norm.weight", ParameterKind::dense, dtype, {config.hidden_size}, ParameterRole::final_norm}}};
  if (!config.tie_word_embeddings) {
    head.parameters.push_back({"lm_head.weight", kind(lora.trains_head()), dtype, table, ParameterRole::output_head});
  }
  stages.push_back(std::move(head));
  if (!has_adapter(stages)) {
    fail_input(
        "lora.target_modules: no linear layer matches {}; use all-linear or names such as q_proj, v_proj, gate_proj",
        fmt::join(lora.target_modules, ", "));
  }
  return stages;
}

}  // namespace qshard
