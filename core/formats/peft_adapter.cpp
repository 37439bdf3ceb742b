#include "core/formats/peft_adapter.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/adapter_targets.h"
#include "core/formats/safetensors.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

constexpr std::string_view kConfigFile = "adapter_config.json";
constexpr std::string_view kTensorsFile = "adapter_model.safetensors";

constexpr std::string_view kAdapterName = ".default";

/// "<module>.lora_A.default.weight", as a raw state dict has it, without the adapter's name.
std::string plain_name(const std::string& name) {
  const std::string end = std::string(kAdapterName) + ".weight";
  return name.ends_with(end) ? name.substr(0, name.size() - end.size()) + ".weight" : name;
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

void read_tensor(const SafetensorsFile& file, const std::string& name, bool is_named, const Shape& shape,
                 NamedTensors& tensors) {
  const std::string stored = is_named ? name.substr(0, name.size() - std::string_view(".weight").size()) +
                                            std::string(kAdapterName) + ".weight"
                                      : name;
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
  const bool is_named = std::ranges::any_of(file.names(), [](const auto& name) { return plain_name(name) != name; });
  for (const LinearModule& module : linear_modules(model)) {
    if (!is_target(adapter.config, module.name)) continue;
    const std::int64_t r = lora_module(adapter.config, module.name).r;
    read_tensor(file, lora_a_name(module.name), is_named, {r, module.in}, adapter.tensors);
    read_tensor(file, lora_b_name(module.name), is_named, {module.out, r}, adapter.tensors);
  }
  for (const std::string& name : file.names()) {
    if (name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight")) {
      fail_input(
          "{}: tensor \"{}\": an adapter with a trained or resized embedding or output head is not supported; merge it "
          "into the base model by PEFT's merge_and_unload first",
          file.path().string(), name);
    }
    if (!adapter.tensors.contains(plain_name(name))) {
      fail_input("{}: tensor \"{}\" belongs to no linear layer of the model that {} targets", file.path().string(),
                 name, kConfigFile);
    }
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
