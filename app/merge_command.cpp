#include <map>
#include <memory>
#include <optional>
#include <set>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/conversion_options.h"
#include "app/convert_weights.h"
#include "app/merge_adapter.h"
#include "app/merge_check.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/checkpoint_check.h"
#include "core/formats/hf_config.h"
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
  std::string write = "16bit";
  std::string check;
  QuantizationOptions options;
};

/// One merge: what becomes of each tensor.
class Merge {
 public:
  Merge(const MergeArguments& arguments, const HfCheckpoint& checkpoint)
      : options_(arguments.options),
        base_4bit_(arguments.base == "4bit"),
        write_4bit_(arguments.write == "4bit"),
        changes_(read_adapter_changes(arguments.adapter, checkpoint)) {
    if (!can_be_run(checkpoint.config())) return;
    for (const LinearModule& module : linear_modules(checkpoint.config())) linear_.insert(module.name + ".weight");
  }

  [[nodiscard]] const AdapterChanges& changes() const { return changes_; }

  void convert(const TensorSource& source, const std::string& name, ConvertedTensors& converted) const {
    const std::string_view owner = weight4bit_owner(source, name);
    if (!owner.empty()) {
      if (stays_4bit(owner)) converted.tensors.emplace_back(name, source.tensor(name));
      return;
    }
    const bool was_4bit = has_weight4bit(source, name);
    if (was_4bit && stays_4bit(name)) {
      converted.tensors.emplace_back(name, source.tensor(name));
    } else if (write_4bit_ && (was_4bit || linear_.contains(name))) {
      const std::optional<Tensor> merged = merged_tensor(source, name);
      converted.weights.push_back(
          reference::quantize_weight(merged ? merged->view() : source.tensor(name), form_of(source, name), name));
      append_weight4bit(name, converted.weights.back().view(), converted.tensors, converted.kept);
    } else {
      std::optional<Tensor> changed = merged_tensor(source, name);
      if (!changed) changed = dequantized(source, name);
      if (changed) converted.kept.push_back(std::move(*changed));
      converted.tensors.emplace_back(name, changed ? converted.kept.back().view() : source.tensor(name));
    }
    if (changes_.unties && name.ends_with(kEmbedding) && !source.contains(kHead)) add_head(source, name, converted);
  }

 private:
  static constexpr std::string_view kEmbedding = "embed_tokens.weight";
  static constexpr std::string_view kHead = "lm_head.weight";

  /// A 4-bit weight that the adapter leaves alone is not quantized twice.
  [[nodiscard]] bool stays_4bit(std::string_view weight) const { return write_4bit_ && !changes_.contains(weight); }

  /// What is not the stored weight: dequantized, or quantized and back.
  [[nodiscard]] std::optional<Tensor> dequantized(const TensorSource& source, const std::string& name) const {
    if (has_weight4bit(source, name)) {
      const Weight4bit weight = read_weight4bit(source, name);
      return reference::dequantize(weight.view(), weight.info.dtype);
    }
    if (!base_4bit_ || !linear_.contains(name)) return std::nullopt;
    const Weight4bit weight = reference::quantize_weight(source.tensor(name), options_, name);
    return reference::dequantize(weight.view(), source.tensor(name).dtype);
  }

  /// The tensor that the adapter gives in this one's place, in the dtype of the base's.
  [[nodiscard]] std::optional<Tensor> whole_tensor(const TensorSource& source, const std::string& name) const {
    const auto whole = changes_.whole.find(name);
    if (whole == changes_.whole.end()) return std::nullopt;
    const DType dtype =
        has_weight4bit(source, name) ? read_weight4bit_info(source, name).dtype : source.tensor(name).dtype;
    return from_floats(to_floats(whole->second.view()), dtype, whole->second.shape());
  }

  [[nodiscard]] std::optional<Tensor> merged_tensor(const TensorSource& source, const std::string& name) const {
    if (!changes_.contains(name)) return std::nullopt;
    std::optional<Tensor> base = whole_tensor(source, name);
    if (const auto bias = changes_.biases.find(name); bias != changes_.biases.end()) {
      return reference::merge_bias(base ? base->view() : source.tensor(name), bias->second.values.view(),
                                   bias->second.scaling);
    }
    const auto found = changes_.weights.find(name);
    if (found == changes_.weights.end()) return base;
    if (!base) base = dequantized(source, name);
    const WeightDelta& delta = found->second;
    return reference::merge_lora(base ? base->view() : source.tensor(name), delta.a.view(), delta.b.view(),
                                 delta.scaling, delta.magnitude ? delta.magnitude->view() : TensorView{});
  }

  /// The head that a tied model does not hold, beside its embedding and in that one's dtype.
  void add_head(const TensorSource& source, const std::string& embedding, ConvertedTensors& converted) const {
    const Tensor& head = changes_.whole.find(kHead)->second;
    converted.kept.push_back(from_floats(to_floats(head.view()), source.tensor(embedding).dtype, head.shape()));
    converted.tensors.emplace_back(kHead, converted.kept.back().view());
  }

  /// How a weight is quantized again: as it was, or as the command says.
  [[nodiscard]] QuantizationOptions form_of(const TensorSource& source, const std::string& name) const {
    if (!has_weight4bit(source, name)) return options_;
    const Weight4bitInfo info = read_weight4bit_info(source, name);
    return {true, info.quant_type, info.blocksize, info.nested, info.storage};
  }

  QuantizationOptions options_;
  bool base_4bit_;
  bool write_4bit_;
  AdapterChanges changes_;
  std::set<std::string> linear_;  // weights of a known family that quantization takes
};

bool holds_4bit(const HfCheckpoint& checkpoint) {
  return std::ranges::any_of(checkpoint.names(), [&](const auto& name) { return has_weight4bit(checkpoint, name); });
}

void check_arguments(const MergeArguments& arguments, const HfCheckpoint& checkpoint, bool is_4bit) {
  if (is_4bit && arguments.base == "16bit") {
    fail_input("--base 16bit: {} holds its weights in 4 bits only; give the model that it was quantized from",
               arguments.model);
  }
  if (can_be_run(checkpoint.config())) {
    check_checkpoint(checkpoint);
    return;
  }
  const std::string type = parse_json(checkpoint.config().text, "config.json").at("model_type").get<std::string>();
  if (!is_4bit && (arguments.base == "4bit" || arguments.write == "4bit")) {
    fail_input(
        "{}: which weights of the family \"{}\" are quantized is not known here; give the 4-bit model, or merge onto "
        "16 bits",
        arguments.model, type);
  }
  if (!arguments.check.empty()) fail_input("--check: the family \"{}\" cannot be run here", type);
  if (is_4bit != checkpoint.config().prequantized_4bit) {
    fail_input("{}: quantization_config of config.json and the stored weights disagree about 4 bits", arguments.model);
  }
}

std::string config_of(const MergeArguments& arguments, const HfCheckpoint& checkpoint, bool is_4bit) {
  if (arguments.write == "16bit") return config_text(checkpoint.config());
  if (is_4bit) return checkpoint.config().text;
  return config_text(checkpoint.config(), arguments.options, checkpoint.config().dtype.value_or(DType::f32));
}

std::string untied(const std::string& config) {
  Json json = parse_json(config, "config.json");
  json["tie_word_embeddings"] = false;
  return python_json(json, 2) + "\n";
}

std::string describe(const AdapterChanges& changes) {
  std::string text = fmt::format("{} weights", changes.weights.size());
  if (!changes.biases.empty()) text += fmt::format(", {} biases", changes.biases.size());
  if (!changes.whole.empty()) text += fmt::format(", {} tensors taken whole", changes.whole.size());
  return text;
}

void merge(const MergeArguments& arguments, Progress& progress) {
  const HfCheckpoint checkpoint = HfCheckpoint::open_any_family(arguments.model);
  const bool is_4bit = holds_4bit(checkpoint);
  check_arguments(arguments, checkpoint, is_4bit);
  const Merge job(arguments, checkpoint);
  const auto convert = [&](const TensorSource& source, const std::string& name, ConvertedTensors& converted) {
    job.convert(source, name, converted);
  };
  const std::string config = config_of(arguments, checkpoint, is_4bit);
  const MergeCheck check{arguments.model, arguments.adapter, arguments.output, arguments.check, arguments.options};
  const CheckedRows rows = check.rows.empty() ? CheckedRows{} : read_checked_rows(check, progress);
  convert_model(checkpoint, arguments.output, job.changes().unties ? untied(config) : config, convert, progress);
  if (job.changes().unties)
    progress.print("Embedding and output head were one table and are two now: tie_word_embeddings is false");
  progress.print(
      fmt::format("Merged {} onto {}; {}", describe(job.changes()),
                  is_4bit || arguments.base == "4bit"
                      ? "the dequantized 4-bit weights, which training saw"
                      : "the stored weights; training on 4-bit weights saw others (see --base 4bit)",
                  arguments.write == "4bit" ? "quantized again, which rounds once more" : "written unquantized"));
  if (check.rows.empty()) return;
  print_merge_check(check, rows, progress);
}

}  // namespace

void add_merge_command(CLI::App& app) {
  auto arguments = std::make_shared<MergeArguments>();
  CLI::App* command = app.add_subcommand("merge", "An adapter added to its base model's weights, as a plain model");
  command->add_option("--model", arguments->model, "Hugging Face directory of the base model, of any family")
      ->required();
  command->add_option("--adapter", arguments->adapter, "PEFT directory")->required();
  command->add_option("--output", arguments->output, "New directory to write")->required();
  command
      ->add_option(
          "--base", arguments->base,
          "16bit: the stored weights; 4bit: what they are after quantization, which QLoRA training saw; auto: as "
          "the model holds them")
      ->check(CLI::IsMember({"auto", "16bit", "4bit"}))
      ->capture_default_str();
  command->add_option("--write", arguments->write, "16bit, or 4bit: quantized again, as the model was or as below")
      ->check(CLI::IsMember({"16bit", "4bit"}))
      ->capture_default_str();
  command
      ->add_option("--check", arguments->check,
                   "Rows (.jsonl and the like, prepared .safetensors, or .txt with a text a line): print how far the "
                   "logits are from those of the base with the adapter")
      ->check(not_empty());
  add_quantization_options(*command, arguments->options, ", where a 16-bit model is quantized");
  command->callback(
      [arguments] { run_conversion(arguments->output, [&](Progress& progress) { merge(*arguments, progress); }); });
}

}  // namespace qshard
