#include "app/merge_adapter.h"

#include <algorithm>
#include <utility>
#include <vector>

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
constexpr std::string_view kBias = ".bias";

/// The tensors that the adapter has for one linear layer.
struct ModuleParts {
  std::optional<Tensor> a;
  std::optional<Tensor> b;
  std::optional<Tensor> bias;
  std::optional<Tensor> magnitude;
};

/// An adapter and the checkpoint that it is to go into.
struct MergeInput {
  const HfCheckpoint& checkpoint;
  std::filesystem::path config_file;
  std::filesystem::path tensor_file;
  AdapterConfig config;
  bool tied = false;
};

Shape shape_of(const HfCheckpoint& checkpoint, const std::string& weight) {
  return has_weight4bit(checkpoint, weight) ? read_weight4bit_info(checkpoint, weight).shape
                                            : checkpoint.tensor(weight).shape;
}

bool is_embedding(std::string_view tensor) {
  return tensor.ends_with("embed_tokens.weight");
}

bool is_head(std::string_view tensor) {
  return tensor.ends_with("lm_head.weight");
}

/// True where config.json ties the output head to the embedding and no other head is stored.
bool is_tied(const HfCheckpoint& checkpoint) {
  const Json json = parse_json(checkpoint.config().text, "config.json");
  const auto tied = json.find("tie_word_embeddings");
  if (tied == json.end() || !tied->is_boolean() || !tied->get<bool>()) return false;
  const auto head = std::ranges::find_if(checkpoint.names(), is_head);
  const auto embedding = std::ranges::find_if(checkpoint.names(), is_embedding);
  if (head == checkpoint.names().end() || embedding == checkpoint.names().end()) return true;
  return std::ranges::equal(checkpoint.tensor(*head).bytes, checkpoint.tensor(*embedding).bytes);
}

/// The layer's part that the name, which starts with the layer's own, stands for; none for anything else.
std::optional<std::pair<std::string, std::optional<Tensor> ModuleParts::*>> part_of(std::string_view name) {
  constexpr std::pair<std::string_view, std::optional<Tensor> ModuleParts::*> kParts[] = {
      {".lora_A.weight", &ModuleParts::a},
      {".lora_B.weight", &ModuleParts::b},
      {".lora_B.bias", &ModuleParts::bias},
      {".lora_magnitude_vector", &ModuleParts::magnitude}};
  for (const auto& [end, part] : kParts) {
    if (name.ends_with(end)) return std::pair(std::string(name.substr(0, name.size() - end.size())), part);
  }
  return std::nullopt;
}

/// The tensor of the checkpoint that one saved whole takes the place of: PEFT writes a layer's own tensors after
/// ".base_layer" where the layer has an adapter too.
std::string base_tensor(const std::string& name) {
  constexpr std::string_view kBaseLayer = ".base_layer.";
  const std::size_t at = name.rfind(kBaseLayer);
  return at == std::string::npos ? name : name.substr(0, at) + name.substr(at + kBaseLayer.size() - 1);
}

void check_whole(const MergeInput& input, const std::string& name, const Tensor& tensor) {
  const bool is_trained_bias = name.ends_with(kBias) && input.config.bias != "none";
  const bool is_tied_head = is_head(name) && input.tied;
  const bool is_known = is_embedding(name) || is_head(name) || is_trained_bias;
  if (!is_known || (!input.checkpoint.contains(name) && !is_tied_head)) {
    fail_input(
        "{}: tensor \"{}{}\" is no part of a LoRA adapter on a layer of {}, nor an embedding, an output head or a "
        "trained bias that it has",
        input.tensor_file.string(), kModuleStart, name, input.checkpoint.directory().string());
  }
  if (!input.checkpoint.contains(name)) return;
  const Shape shape = shape_of(input.checkpoint, name);
  if (tensor.shape() == shape) return;
  fail_input(
      "{}: tensor \"{}{}\" has shape {}, but the model's has {}; if the vocabulary was resized, resize the model's too "
      "(transformers: resize_token_embeddings({}), then save_pretrained)",
      input.tensor_file.string(), kModuleStart, name, to_string(tensor.shape()), to_string(shape), tensor.shape()[0]);
}

/// A part is there where, and only where, the adapter's kind has it.
void check_has(const MergeInput& input, const std::string& module, std::string_view part,
               const std::optional<Tensor>& tensor, bool is_wanted) {
  if (tensor.has_value() == is_wanted) return;
  fail_input("{}: tensor \"{}{}.{}\" {}, by {}", input.tensor_file.string(), kModuleStart, module, part,
             is_wanted ? "is missing" : "is there but should not be", input.config_file.filename().string());
}

void check_shapes(const MergeInput& input, const std::string& module, const ModuleParts& parts, std::int64_t r) {
  const Shape shape = shape_of(input.checkpoint, module + std::string(kWeight));
  const bool fits =
      shape.size() == 2 && parts.a->shape() == Shape{r, shape[1]} && parts.b->shape() == Shape{shape[0], r};
  if (!fits) {
    fail_input("{}: module {}: lora_A {} and lora_B {} do not fit r {} and a weight of shape {}",
               input.tensor_file.string(), module, to_string(parts.a->shape()), to_string(parts.b->shape()), r,
               to_string(shape));
  }
  for (const auto& vector : {parts.bias, parts.magnitude}) {
    if (!vector || vector->shape() == Shape{shape[0]}) continue;
    fail_input("{}: module {}: a bias or magnitude of shape {} does not fit a weight of shape {}",
               input.tensor_file.string(), module, to_string(vector->shape()), to_string(shape));
  }
}

void add_module(const MergeInput& input, const std::string& module, ModuleParts parts, AdapterChanges& changes) {
  const std::string weight = module + std::string(kWeight);
  if (input.tied && (is_head(weight) || is_embedding(weight))) {
    fail_input("{}: the adapter changes {}, which config.json ties to another; untie them first",
               input.tensor_file.string(), module);
  }
  if (!input.checkpoint.contains(weight)) {
    fail_input("{}: the adapter changes module {}, but {} has no tensor \"{}\"", input.tensor_file.string(), module,
               input.checkpoint.directory().string(), weight);
  }
  const LoraModule lora = lora_module(input.config, module);
  check_has(input, module, "lora_A.weight", parts.a, true);
  check_has(input, module, "lora_B.weight", parts.b, true);
  check_has(input, module, "lora_B.bias", parts.bias, input.config.lora_bias);
  check_has(input, module, "lora_magnitude_vector", parts.magnitude, input.config.use_dora);
  check_shapes(input, module, parts, lora.r);
  const double scaling = lora.alpha / lora.r;
  changes.weights[weight] = {std::move(*parts.a), std::move(*parts.b), scaling, std::move(parts.magnitude)};
  if (!parts.bias) return;
  const std::string bias = module + std::string(kBias);
  if (!input.checkpoint.contains(bias)) {
    fail_input(
        "{}: lora_bias trained a bias for {}, which has none in {}, so there is nothing to add it to (PEFT refuses "
        "this too); use the adapter unmerged",
        input.tensor_file.string(), module, input.checkpoint.directory().string());
  }
  changes.biases[bias] = {std::move(*parts.bias), scaling};
}

/// Layers that the configuration names as targets must have been trained: a file that lost some is refused.
void check_complete(const MergeInput& input, const AdapterChanges& changes) {
  const auto check = [&](const std::string& module) {
    if (!is_target(input.config, module) || changes.weights.contains(module + std::string(kWeight))) return;
    fail_input("{}: {} targets module {}, but the file has no tensors of it", input.tensor_file.string(),
               input.config_file.filename().string(), module);
  };
  if (can_be_run(input.checkpoint.config())) {
    for (const LinearModule& module : linear_modules(input.checkpoint.config())) check(module.name);
  }
  const bool names_modules =
      input.config.target_pattern || input.config.target_modules != std::vector<std::string>{"all-linear"};
  for (const std::string& name : input.checkpoint.names()) {
    if (!names_modules || !name.ends_with(kWeight) || shape_of(input.checkpoint, name).size() != 2) continue;
    check(name.substr(0, name.size() - kWeight.size()));
  }
}

/// modules_to_save names what must be there.
void check_saved(const MergeInput& input, const AdapterChanges& changes) {
  for (const std::string& module : input.config.modules_to_save) {
    const auto is_of_module = [&](const auto& entry) { return entry.first.ends_with(module + std::string(kWeight)); };
    if (std::ranges::any_of(changes.whole, is_of_module)) continue;
    fail_input("{}: modules_to_save has {}, but {} has no tensor of it", input.config_file.string(), module,
               input.tensor_file.string());
  }
}

/// The head of a tied model is the embedding unless the adapter has one; it becomes a tensor of its own where the two
/// differ.
void untie(const MergeInput& input, AdapterChanges& changes) {
  const auto embedding = std::ranges::find_if(
      changes.whole, is_embedding, [](const auto& e) -> auto& { return e.first; });
  const auto head = std::ranges::find_if(
      changes.whole, is_head, [](const auto& e) -> auto& { return e.first; });
  const bool has_embedding = embedding != changes.whole.end();
  const bool has_head = head != changes.whole.end();
  if (!input.tied || (!has_embedding && !has_head)) return;
  changes.unties = !has_embedding || !has_head || to_floats(embedding->second.view()) != to_floats(head->second.view());
  if (has_head) return;
  const auto base = std::ranges::find_if(input.checkpoint.names(), is_embedding);
  changes.whole["lm_head.weight"] = Tensor(input.checkpoint.tensor(*base));
}

}  // namespace

AdapterChanges read_adapter_changes(const std::filesystem::path& adapter, const HfCheckpoint& checkpoint) {
  const std::filesystem::path config_file = adapter / "adapter_config.json";
  const MergeInput input{checkpoint, config_file, adapter / "adapter_model.safetensors",
                         parse_adapter_config(read_file(config_file), config_file.string()), is_tied(checkpoint)};
  AdapterChanges changes;
  std::map<std::string, ModuleParts> modules;
  for (auto& [name, tensor] : read_adapter_tensors(adapter)) {
    if (!name.starts_with(kModuleStart)) {
      fail_input("{}: tensor \"{}\" does not begin with {}, as PEFT's names do", input.tensor_file.string(), name,
                 kModuleStart);
    }
    const std::string in_model = name.substr(kModuleStart.size());
    if (const auto part = part_of(in_model)) {
      modules[part->first].*part->second = tensor;
      continue;
    }
    const std::string whole = base_tensor(in_model);
    check_whole(input, whole, tensor);
    changes.whole[whole] = tensor;
  }
  for (auto& [module, parts] : modules) add_module(input, module, std::move(parts), changes);
  check_complete(input, changes);
  check_saved(input, changes);
  untie(input, changes);
  return changes;
}

}  // namespace qshard
