#include "core/formats/peft_adapter.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/adapter_targets.h"
#include "core/formats/safetensors.h"
#include "core/model/adapter_parameters.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

constexpr std::string_view kConfigFile = "adapter_config.json";
constexpr std::string_view kTensorsFile = "adapter_model.safetensors";

/// A tensor's name as save_pretrained writes it; a raw state dict has the adapter's name in it, "default".
std::string plain_name(std::string name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNames{
      {{".lora_magnitude_vector.default.weight", ".lora_magnitude_vector"},
       {".modules_to_save.default.", "."},
       {".default.weight", ".weight"},
       {".default.bias", ".bias"}}};
  for (const auto& [raw, plain] : kNames) {
    const std::size_t at = name.rfind(raw);
    if (at != std::string::npos) return name.replace(at, raw.size(), plain);
  }
  return name;
}

SafetensorsFile open_tensors(const std::filesystem::path& directory) {
  std::error_code ignored;
  const std::filesystem::path pickled = directory / "adapter_model.bin";
  if (!std::filesystem::exists(directory / kTensorsFile, ignored) && std::filesystem::exists(pickled, ignored)) {
    fail_input(
        "{}: pickled files are not read; write {} with: python -c \"import torch, safetensors.torch as s; "
        "s.save_file(torch.load('{}', weights_only=True), '{}')\"",
        pickled.string(), kTensorsFile, pickled.string(), (directory / kTensorsFile).string());
  }
  return SafetensorsFile::open(directory / kTensorsFile);
}

void check_biases(const AdapterConfig& config, const ModelConfig& model, const std::filesystem::path& config_path) {
  const auto modules = layer_modules(model);
  if (config.bias == "none" || std::ranges::none_of(modules, &LinearModule::bias)) return;
  fail_input("{}: bias: \"{}\" trains the biases that this model has, which is not supported; known: none",
             config_path.string(), config.bias);
}

/// All that a file of this adapter holds, by the base model's names.
std::vector<Parameter> trained_parameters(const AdapterConfig& config, const ModelConfig& model) {
  const LoraOptions lora = lora_options(config, model);
  std::vector<Parameter> list;
  for (const LinearModule& module : linear_modules(model)) {
    if (is_target(config, module.name))
      std::ranges::move(adapter_parameters(lora, module.name, module, DType::f32), std::back_inserter(list));
  }
  if (list.empty()) return list;
  for (const auto& [module, trained] :
       {std::pair{"model.embed_tokens", lora.trains_embedding()}, std::pair{"lm_head", lora.trains_head()}}) {
    if (trained)
      list.push_back({fmt::format("{}.weight", module),
                      ParameterKind::trained,
                      DType::f32,
                      {model.vocab_size, model.hidden_size}});
  }
  return list;
}

/// The embedding or the output head.
bool is_table(std::string_view name) {
  return name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight");
}

/// The tables that the file has though modules_to_save does not name them.
std::vector<std::string> tables_saved_along(const PeftAdapter& adapter) {
  std::vector<std::string> tables;
  for (const auto& [table, parameter] :
       {std::pair{"embed_tokens", "model.embed_tokens.weight"}, std::pair{"lm_head", "lm_head.weight"}}) {
    const bool is_named =
        std::ranges::find(adapter.config.modules_to_save, table) != adapter.config.modules_to_save.end();
    if (!is_named && adapter.tensors.contains(peft_name(parameter))) tables.emplace_back(table);
  }
  return tables;
}

void check_tensor(const std::filesystem::path& file, const NamedTensors& tensors, const Parameter& parameter) {
  const std::string name = peft_name(parameter.name);
  const auto found = tensors.find(name);
  if (found == tensors.end()) fail_input("{}: tensor \"{}\" is missing", file.string(), name);
  if (found->second.shape() == parameter.shape) return;
  if (is_table(name)) {
    fail_input(
        "{}: tensor \"{}\" has shape {}, but the model's table has {}; where the vocabulary was resized for the "
        "adapter, resize the model's too (transformers: resize_token_embeddings({}), then save_pretrained)",
        file.string(), name, to_string(found->second.shape()), to_string(parameter.shape), found->second.shape()[0]);
  }
  fail_input("{}: tensor \"{}\" has shape {}, but r and the model ask for {}", file.string(), name,
             to_string(found->second.shape()), to_string(parameter.shape));
}

}  // namespace

std::string peft_name(std::string_view parameter) {
  return fmt::format("base_model.model.{}", parameter);
}

std::string lora_a_name(std::string_view module) {
  return peft_name(fmt::format("{}.lora_A.weight", module));
}

std::string lora_b_name(std::string_view module) {
  return peft_name(fmt::format("{}.lora_B.weight", module));
}

NamedTensors read_adapter_tensors(const std::filesystem::path& directory) {
  const SafetensorsFile file = open_tensors(directory);
  NamedTensors tensors;
  for (const std::string& name : file.names()) {
    const TensorView view = file.tensor(name);
    if (!is_floating(view.dtype)) {
      fail_input("{}: tensor \"{}\" is {}, but must be floating-point", file.path().string(), name,
                 torch_name(view.dtype));
    }
    if (tensors.emplace(plain_name(name), view).second) continue;
    fail_input("{}: tensor \"{}\" is there twice, as \"{}\" too", file.path().string(), name, plain_name(name));
  }
  return tensors;
}

PeftAdapter read_adapter(const std::filesystem::path& directory, const ModelConfig& model) {
  const std::filesystem::path config_path = directory / kConfigFile;
  const std::filesystem::path file = directory / kTensorsFile;
  PeftAdapter adapter;
  adapter.config = parse_adapter_config(read_file(config_path), config_path.string());
  adapter.tensors = read_adapter_tensors(directory);
  check_biases(adapter.config, model, config_path);
  adapter.saved_along = tables_saved_along(adapter);
  std::ranges::copy(adapter.saved_along, std::back_inserter(adapter.config.modules_to_save));
  std::set<std::string> known;
  for (const Parameter& parameter : trained_parameters(adapter.config, model)) {
    check_tensor(file, adapter.tensors, parameter);
    known.insert(peft_name(parameter.name));
  }
  for (const auto& [name, tensor] : adapter.tensors) {
    if (known.contains(name)) continue;
    if (name.find("lm_head.") != std::string::npos || name.find("embed_tokens.") != std::string::npos) {
      fail_input(
          "{}: tensor \"{}\": an adapter on the embedding or the output head is not run here; put it into the model "
          "(./qshard merge for the output head, PEFT's merge_and_unload for the embedding)",
          file.string(), name);
    }
    fail_input("{}: tensor \"{}\" belongs to no linear layer of the model that {} targets", file.string(), name,
               kConfigFile);
  }
  if (adapter.tensors.empty()) {
    fail_input("{}: target_modules: no linear layer of the model is among them", config_path.string());
  }
  return adapter;
}

void write_adapter(const std::filesystem::path& directory, const AdapterConfig& config, const NamedTensors& tensors) {
  std::vector<std::pair<std::string, TensorView>> views;
  views.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
  write_safetensors(directory / kTensorsFile, std::move(views));
  write_file(directory / kConfigFile, adapter_config_text(config));
}

}  // namespace qshard
