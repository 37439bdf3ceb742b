#include <memory>
#include <set>

#include "app/commands.h"
#include "app/conversion_options.h"
#include "app/convert_weights.h"
#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/checkpoint_check.h"
#include "core/formats/hf_config.h"
#include "core/model/module_table.h"
#include "reference/quantize.h"

namespace qshard {
namespace {

struct QuantizeArguments {
  ConversionPaths paths;
  QuantizationOptions options;
};

void copy_tensor(const TensorSource& source, const std::string& name, ConvertedTensors& converted) {
  converted.tensors.emplace_back(name, source.tensor(name));
}

void quantize_tensor(const TensorSource& source, const std::string& name, const QuantizationOptions& options,
                     ConvertedTensors& converted) {
  converted.weights.push_back(reference::quantize_weight(source.tensor(name), options, name));
  append_weight4bit(name, converted.weights.back().view(), converted.tensors, converted.kept);
}

/// Data already quantized is never quantized again: 4-bit weights and their parts are copied.
bool is_quantized(const TensorSource& source, const std::string& name) {
  return has_weight4bit(source, name) || is_weight4bit_part(source, name);
}

/// Names of the decoder layers' linear weights; embeddings, norms and the output head stay as they are.
std::set<std::string> linear_weights(const ModelConfig& config) {
  std::set<std::string> names;
  for (const LinearModule& module : linear_modules(config)) names.insert(module.name + ".weight");
  return names;
}

void quantize_file(const QuantizeArguments& arguments, Progress& progress) {
  const auto convert = [&](const TensorSource& source, const std::string& name, ConvertedTensors& converted) {
    if (is_floating(source.tensor(name).dtype) && !is_quantized(source, name)) {
      quantize_tensor(source, name, arguments.options, converted);
    } else {
      copy_tensor(source, name, converted);
    }
  };
  convert_file(arguments.paths.input, arguments.paths.output, convert, progress);
}

void quantize_model(const QuantizeArguments& arguments, Progress& progress) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(arguments.paths.model);
  if (count_weights4bit(checkpoint) > 0) {
    fail_input("{}: is already quantized to 4 bits, and is never quantized again", arguments.paths.model);
  }
  check_tensors(checkpoint);
  const std::set<std::string> linear = linear_weights(checkpoint.config());
  const auto convert = [&](const TensorSource& source, const std::string& name, ConvertedTensors& converted) {
    if (linear.contains(name)) {
      quantize_tensor(source, name, arguments.options, converted);
    } else {
      copy_tensor(source, name, converted);
    }
  };
  const DType compute_dtype = checkpoint.config().dtype.value_or(DType::f32);
  convert_model(checkpoint, arguments.paths.output, config_text(checkpoint.config(), arguments.options, compute_dtype),
                convert, progress);
}

}  // namespace

void add_quantize_command(CLI::App& app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  CLI::App* command = app.add_subcommand(
      "quantize", "Quantize a safetensors file or a model directory to 4 bits, in bitsandbytes' layout");
  add_conversion_options(*command, arguments->paths, "safetensors file: every floating tensor is quantized",
                         "Hugging Face directory: the decoder layers' linear weights are");
  add_quantization_options(*command, arguments->options, "");
  command->callback([arguments] {
    run_conversion(arguments->paths.output, [&](Progress& progress) {
      if (arguments->paths.model.empty()) {
        quantize_file(*arguments, progress);
      } else {
        quantize_model(*arguments, progress);
      }
    });
  });
}

}  // namespace qshard
