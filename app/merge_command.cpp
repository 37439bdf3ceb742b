#include <map>
#include <memory>
#include <optional>
#include <set>

#include "app/commands.h"
#include "app/conversion_options.h"
#include "app/convert_weights.h"
#include "core/base/error.h"
#include "core/formats/adapter_targets.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/checkpoint_check.h"
#include "core/formats/hf_config.h"
#include "core/formats/peft_adapter.h"
#include "core/model/module_table.h"
#include "reference/dequantize.h"
#include "reference/merge_lora.h"
#include "reference/quantize.h"

namespace qshard {
namespace {

struct MergeArguments {
  std::string model;
  std::string adapter;
  std::string output;
  std::string base = "auto";
  QuantizationOptions options;
};

/// The weight that the adapter is added to, where it is not the stored one: dequantized, or quantized and back.
std::optional<Tensor> dequantized_weight(const MergeArguments& arguments, const TensorSource& source,
                                         const std::string& name, bool is_linear) {
  if (has_weight4bit(source, name)) {
    const Weight4bit weight = read_weight4bit(source, name);
    return reference::dequantize(weight.view(), weight.info.dtype);
  }
  if (arguments.base != "4bit" || !is_linear) return std::nullopt;
  const Weight4bit weight = reference::quantize(source.tensor(name), arguments.options, name);
  return reference::dequantize(weight.view(), source.tensor(name).dtype);
}

/// Every target weight by name, with its module.
std::map<std::string, std::string> target_weights(const AdapterConfig& config, const ModelConfig& model) {
  std::map<std::string, std::string> weights;
  for (const LinearModule& module : linear_modules(model)) {
    if (is_target(config, module.name)) weights[module.name + ".weight"] = module.name;
  }
  return weights;
}

void merge(const MergeArguments& arguments, Progress& progress) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(arguments.model);
  check_checkpoint(checkpoint);
  const bool is_4bit = count_weights4bit(checkpoint) > 0;
  if (is_4bit && arguments.base == "16bit") {
    fail_input("--base 16bit: {} holds its weights in 4 bits only; give the model that it was quantized from",
               arguments.model);
  }
  const PeftAdapter adapter = read_adapter(arguments.adapter, checkpoint.config());
  if (!lora_options(adapter.config, checkpoint.config()).is_plain()) {
    fail_input("{}: use_dora, lora_bias and modules_to_save are not merged here; PEFT's merge_and_unload does it",
               arguments.adapter);
  }
  std::set<std::string> linear;
  for (const LinearModule& module : linear_modules(checkpoint.config())) linear.insert(module.name + ".weight");
  const auto targets = target_weights(adapter.config, checkpoint.config());
  const auto convert = [&](const TensorSource& source, const std::string& name, ConvertedTensors& converted) {
    if (is_weight4bit_part(source, name)) return;
    std::optional<Tensor> changed = dequantized_weight(arguments, source, name, linear.contains(name));
    const auto target = targets.find(name);
    if (target != targets.end()) {
      const LoraModule module = lora_module(adapter.config, target->second);
      changed = reference::merge_lora(changed ? changed->view() : source.tensor(name),
                                      adapter.tensors.at(lora_a_name(target->second)).view(),
                                      adapter.tensors.at(lora_b_name(target->second)).view(), module.alpha / module.r);
    }
    if (changed) converted.kept.push_back(std::move(*changed));
    converted.tensors.emplace_back(name, changed ? converted.kept.back().view() : source.tensor(name));
  };
  convert_model(checkpoint, arguments.output, config_text(checkpoint.config()), convert, progress);
  progress.print(fmt::format("Merged {} weights onto {}", targets.size(),
                             is_4bit || arguments.base == "4bit"
                                 ? "the dequantized 4-bit weights, which training saw"
                                 : "the stored weights; training on 4-bit weights saw others (see --base 4bit)"));
}

}  // namespace

void add_merge_command(CLI::App& app) {
  auto arguments = std::make_shared<MergeArguments>();
  CLI::App* command = app.add_subcommand("merge", "An adapter added to its base model's weights, as a plain model");
  command->add_option("--model", arguments->model, "Hugging Face directory of the base model")->required();
  command->add_option("--adapter", arguments->adapter, "PEFT directory")->required();
  command->add_option("--output", arguments->output, "New directory to write")->required();
  command
      ->add_option(
          "--base", arguments->base,
          "16bit: the stored weights; 4bit: what they are after quantization, which QLoRA training saw; auto: as "
          "the model holds them")
      ->check(CLI::IsMember({"auto", "16bit", "4bit"}))
      ->capture_default_str();
  command->add_option_function<std::string>(
      "--quant-type",
      [arguments](const std::string& name) { arguments->options.quant_type = parse_quant_type(name, "--quant-type"); },
      "nf4 or fp4, for --base 4bit");
  command->add_option("--blocksize", arguments->options.blocksize, "Elements that share one absmax, for --base 4bit")
      ->capture_default_str();
  command->add_flag("--double-quant,!--no-double-quant", arguments->options.double_quant,
                    "Quantize absmax itself to 8 bits, for --base 4bit");
  command->callback(
      [arguments] { run_conversion(arguments->output, [&](Progress& progress) { merge(*arguments, progress); }); });
}

}  // namespace qshard
