#include "app/merge_adapter.h"

#include <set>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/adapter_targets.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_config.h"
#include "core/formats/peft_adapter.h"
#include "core/model/module_table.h"

namespace qshard {
namespace {

constexpr std::string_view kModuleStart = "base_model.model.";
constexpr std::string_view kWeight = ".weight";

/// The module of "base_model.model.<module><end>", where a name has that form.
std::optional<std::string> module_of(std::string_view name, std::string_view end) {
  if (!name.starts_with(kModuleStart) || !name.ends_with(end)) return std::nullopt;
  return std::string(name.substr(kModuleStart.size(), name.size() - kModuleStart.size() - end.size()));
}

Shape shape_of(const HfCheckpoint& checkpoint, const std::string& weight) {
  return has_weight4bit(checkpoint, weight) ? read_weight4bit_info(checkpoint, weight).shape
                                            : checkpoint.tensor(weight).shape;
}

/// Modules that have an A or a B; everything else in the file is refused.
std::set<std::string> adapted_modules(const SafetensorsFile& file) {
  std::set<std::string> modules;
  for (const std::string& name : file.names()) {
    auto module = module_of(name, ".lora_A.weight");
    if (!module) module = module_of(name, ".lora_B.weight");
    if (!module) {
      fail_input(
          "{}: tensor \"{}\" is neither lora_A.weight nor lora_B.weight of a module; DoRA, biases, embeddings and "
          "modules saved whole are not merged here: use PEFT's merge_and_unload",
          file.path().string(), name);
    }
    modules.insert(*module);
  }
  return modules;
}

void check_fits(const SafetensorsFile& file, const HfCheckpoint& checkpoint, const std::string& module,
                std::int64_t r) {
  const std::string weight = module + std::string(kWeight);
  if (!checkpoint.contains(weight)) {
    fail_input("{}: the adapter changes module {}, but {} has no tensor \"{}\"", file.path().string(), module,
               checkpoint.directory().string(), weight);
  }
  const Shape shape = shape_of(checkpoint, weight);
  const Shape a = file.tensor(lora_a_name(module)).shape;
  const Shape b = file.tensor(lora_b_name(module)).shape;
  const bool fits = shape.size() == 2 && a == Shape{r, shape[1]} && b == Shape{shape[0], r};
  if (!fits) {
    fail_input("{}: module {}: lora_A {} and lora_B {} do not fit r {} and a weight of shape {}", file.path().string(),
               module, to_string(a), to_string(b), r, to_string(shape));
  }
}

/// Weights that the configuration names as targets must have been trained: a file that lost some is refused.
void check_complete(const AdapterConfig& config, const HfCheckpoint& checkpoint, const std::set<std::string>& modules,
                    const std::filesystem::path& file) {
  const bool names_modules = config.target_pattern || config.target_modules != std::vector<std::string>{"all-linear"};
  if (!names_modules) return;
  for (const std::string& name : checkpoint.names()) {
    if (!name.ends_with(kWeight)) continue;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    if (modules.contains(module) || !is_target(config, module) || shape_of(checkpoint, name).size() != 2) continue;
    fail_input("{}: adapter_config.json targets module {}, but the file has no tensors of it", file.string(), module);
  }
}

void check_plain(const AdapterConfig& config, const std::filesystem::path& adapter) {
  if (!config.use_dora && !config.lora_bias && config.modules_to_save.empty()) return;
  fail_input("{}: use_dora, lora_bias and modules_to_save are not merged here; PEFT's merge_and_unload does it",
             (adapter / "adapter_config.json").string());
}

bool ties_embeddings(const ModelConfig& config) {
  const Json json = parse_json(config.text, "config.json");
  const auto tied = json.find("tie_word_embeddings");
  return tied != json.end() && tied->is_boolean() && tied->get<bool>();
}

std::map<std::string, WeightDelta> deltas_of_any_family(const std::filesystem::path& adapter,
                                                        const HfCheckpoint& checkpoint) {
  const std::filesystem::path config_path = adapter / "adapter_config.json";
  const AdapterConfig config = parse_adapter_config(read_file(config_path), config_path.string());
  check_plain(config, adapter);
  if (config.bias != "none") {
    fail_input("{}: bias: \"{}\" trains biases, which are not merged here; known: none", config_path.string(),
               config.bias);
  }
  const SafetensorsFile file = SafetensorsFile::open(adapter / "adapter_model.safetensors");
  const std::set<std::string> modules = adapted_modules(file);
  check_complete(config, checkpoint, modules, file.path());
  std::map<std::string, WeightDelta> deltas;
  for (const std::string& module : modules) {
    if (module.ends_with("lm_head") && ties_embeddings(checkpoint.config())) {
      fail_input("{}: the adapter changes {}, which config.json ties to the embedding; untie them first",
                 file.path().string(), module);
    }
    const LoraModule lora = lora_module(config, module);
    check_fits(file, checkpoint, module, lora.r);
    deltas[module + std::string(kWeight)] = {Tensor(file.tensor(lora_a_name(module))),
                                             Tensor(file.tensor(lora_b_name(module))), lora.alpha / lora.r};
  }
  return deltas;
}

}  // namespace

std::map<std::string, WeightDelta> read_weight_deltas(const std::filesystem::path& adapter,
                                                      const HfCheckpoint& checkpoint) {
  if (!can_be_run(checkpoint.config())) return deltas_of_any_family(adapter, checkpoint);
  PeftAdapter peft = read_adapter(adapter, checkpoint.config());
  check_plain(peft.config, adapter);
  std::map<std::string, WeightDelta> deltas;
  for (const LinearModule& module : linear_modules(checkpoint.config())) {
    if (!is_target(peft.config, module.name)) continue;
    auto a = peft.tensors.extract(lora_a_name(module.name));
    auto b = peft.tensors.extract(lora_b_name(module.name));
    const LoraModule lora = lora_module(peft.config, module.name);
    deltas[module.name + std::string(kWeight)] = {std::move(a.mapped()), std::move(b.mapped()), lora.alpha / lora.r};
  }
  if (!peft.tensors.empty()) {
    fail_input(
        "{}: tensor \"{}\" is neither lora_A.weight nor lora_B.weight of a module; it is not merged here: use PEFT's "
        "merge_and_unload",
        (adapter / "adapter_model.safetensors").string(), peft.tensors.begin()->first);
  }
  return deltas;
}

}  // namespace qshard
