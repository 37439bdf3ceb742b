#include "core/model/model_parameters.h"

#include <span>
#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/lora_targets.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

void add_codes_and_statistics(const std::string& name, const Weight4bitInfo& info, std::vector<Parameter>& list) {
  const std::int64_t elements = element_count(info.shape);
  const std::int64_t blocks = block_count(elements, info.blocksize);
  list.push_back({name, ParameterKind::codes, info.storage, storage_shape(elements, info.storage, name)});
  if (info.nested) {
    const std::int64_t nested_blocks = block_count(blocks, kNestedBlocksize);
    list.push_back({name + ".nested_absmax", ParameterKind::statistics, DType::f32, {nested_blocks}});
    list.push_back({name + ".absmax", ParameterKind::statistics, DType::u8, {blocks}});
  } else {
    list.push_back({name + ".absmax", ParameterKind::statistics, DType::f32, {blocks}});
  }
}

ModelStage decoder_stage(std::int64_t layer, std::span<const LinearModule> modules, const ModelConfig& config,
                         const QuantizationOptions& quantization, const LoraOptions& lora, DType dtype,
                         const PrequantizedInfo& prequantized) {
  ModelStage stage{fmt::format("model.layers.{}", layer), {}};
  auto& list = stage.parameters;
  for (const std::string_view norm : {"input_layernorm", "post_attention_layernorm"}) {
    list.push_back({module_path(layer, norm) + ".weight", ParameterKind::dense, dtype, {config.hidden_size}});
  }
  for (const LinearModule& module : modules) {
    const std::string name = module.name + ".weight";
    const Shape shape{module.out, module.in};
    std::optional<Weight4bitInfo> info = prequantized(name, shape);
    if (!info && quantization.load_in_4bit) info = planned_info(quantization, dtype, shape);
    if (info) {
      add_codes_and_statistics(name, *info, list);
    } else {
      list.push_back({name, ParameterKind::dense, dtype, shape});
    }
    if (is_target(lora.target_modules, module.name)) {
      list.push_back({module.name + ".lora_A.weight", ParameterKind::lora, dtype, {lora.r, module.in}});
      list.push_back({module.name + ".lora_B.weight", ParameterKind::lora, dtype, {module.out, lora.r}});
    }
  }
  return stage;
}

bool has_adapter(const std::vector<ModelStage>& stages) {
  for (const ModelStage& stage : stages) {
    for (const Parameter& parameter : stage.parameters) {
      if (parameter.kind == ParameterKind::lora) return true;
    }
  }
  return false;
}

}  // namespace

std::string module_path(std::int64_t layer, std::string_view module) {
  return fmt::format("model.layers.{}.{}", layer, module);
}

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
  std::vector<ModelStage> stages{
      {"model.embed_tokens", {{"model.embed_tokens.weight", ParameterKind::dense, dtype, table}}}};
  const std::vector<LinearModule> modules = linear_modules(config);
  const std::size_t in_layer = modules.size() / static_cast<std::size_t>(config.num_hidden_layers);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto of_layer = std::span(modules).subspan(static_cast<std::size_t>(layer) * in_layer, in_layer);
    stages.push_back(decoder_stage(layer, of_layer, config, quantization, lora, dtype, prequantized));
  }
  ModelStage head{"lm_head", {{"model.norm.weight", ParameterKind::dense, dtype, {config.hidden_size}}}};
  if (!config.tie_word_embeddings) {
    head.parameters.push_back({"lm_head.weight", ParameterKind::dense, dtype, table});
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
