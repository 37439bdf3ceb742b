#include "core/formats/peft_adapter.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
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

/// The names that the file has its tensors under, by their plain ones.
std::map<std::string, std::string> stored_names(const SafetensorsFile& file) {
  std::map<std::string, std::string> names;
  for (const std::string& name : file.names()) {
    if (names.emplace(plain_name(name), name).second) continue;
    fail_input("{}: tensor \"{}\" is there twice, as \"{}\" too", file.path().string(), name, plain_name(name));
  }
  return names;
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

void read_tensor(const SafetensorsFile& file, const std::string& name, const std::string& stored, const Shape& shape,
                 NamedTensors& tensors) {
  const TensorView view = file.tensor(stored);
  if (view.shape != shape) {
    fail_input("{}: tensor \"{}\" has shape {}, but r and the model ask for {}", file.path().string(), name,
               to_string(view.shape), to_string(shape));
  }
  if (!is_floating(view.dtype)) {
    fail_input("{}: tensor \"{}\" is {}, but must be floating-point", file.path().string(), name,
               torch_name(view.dtype));
  }
  tensors.emplace(name, view);
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

PeftAdapter read_adapter(const std::filesystem::path& directory, const ModelConfig& model) {
  const std::filesystem::path config_path = directory / kConfigFile;
  PeftAdapter adapter;
  adapter.config = parse_adapter_config(read_file(config_path), config_path.string());
  const SafetensorsFile file = open_tensors(directory);
  check_biases(adapter.config, model, config_path);
  const std::map<std::string, std::string> stored = stored_names(file);
  for (const Parameter& parameter : trained_parameters(adapter.config, model)) {
    const std::string name = peft_name(parameter.name);
    const auto found = stored.find(name);
    read_tensor(file, name, found == stored.end() ? name : found->second, parameter.shape, adapter.tensors);
  }
  for (const auto& [plain, name] : stored) {
    if (adapter.tensors.contains(plain)) continue;
    if (plain.ends_with("embed_tokens.weight") || plain.ends_with("lm_head.weight")) {
      fail_input(
          "{}: tensor \"{}\" was saved along, but {} does not name it in modules_to_save; if it was trained, add its "
          "module there, and remove it if it is the base model's own",
          file.path().string(), name, kConfigFile);
    }
    fail_input("{}: tensor \"{}\" belongs to no linear layer of the model that {} targets", file.path().string(), name,
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
