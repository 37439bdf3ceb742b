#include "core/formats/peft_adapter.h"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/safetensors.h"
#include "core/model/lora_targets.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

constexpr std::string_view kConfigFile = "adapter_config.json";
constexpr std::string_view kTensorsFile = "adapter_model.safetensors";

void read_tensor(const SafetensorsFile& file, const std::string& name, const Shape& shape, NamedTensors& tensors) {
  const TensorView view = file.tensor(name);
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
  const std::int64_t r = adapter.config.r;
  const SafetensorsFile file = SafetensorsFile::open(directory / kTensorsFile);
  for (const LinearModule& module : linear_modules(model)) {
    if (!is_target(adapter.config, module.name)) continue;
    read_tensor(file, lora_a_name(module.name), {r, module.in}, adapter.tensors);
    read_tensor(file, lora_b_name(module.name), {module.out, r}, adapter.tensors);
  }
  for (const std::string& name : file.names()) {
    if (!adapter.tensors.contains(name)) {
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
