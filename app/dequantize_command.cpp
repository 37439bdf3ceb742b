#include <algorithm>
#include <memory>

#include "app/commands.h"
#include "app/conversion_options.h"
#include "app/convert_weights.h"
#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_config.h"
#include "reference/dequantize.h"

namespace qshard {
namespace {

struct DequantizeArguments {
  ConversionPaths paths;
  std::string dtype = "auto";
};

DType output_dtype(const DequantizeArguments& arguments, DType own) {
  if (arguments.dtype == "auto") return own;
  const DType dtype = parse_torch_name(arguments.dtype, "--dtype");
  if (!is_floating(dtype))
    fail_input("--dtype: {} cannot hold a weight; use float32, bfloat16 or float16", arguments.dtype);
  return dtype;
}

ConvertTensor dequantize_with(const DequantizeArguments& arguments) {
  return [&](const TensorSource& source, const std::string& name, ConvertedTensors& converted) {
    if (is_weight4bit_part(source, name)) return;
    if (!has_weight4bit(source, name)) {
      converted.tensors.emplace_back(name, source.tensor(name));
      return;
    }
    const Weight4bit weight = read_weight4bit(source, name);
    // A moved Tensor keeps its bytes in place, so that the view stays valid while `kept` grows.
    converted.kept.push_back(reference::dequantize(weight.view(), output_dtype(arguments, weight.info.dtype)));
    converted.tensors.emplace_back(name, converted.kept.back().view());
  };
}

void dequantize(const DequantizeArguments& arguments, Progress& progress) {
  output_dtype(arguments, DType::f32);  // one that cannot be is refused though nothing be 4-bit
  const ConvertTensor convert = dequantize_with(arguments);
  if (arguments.paths.model.empty()) {
    convert_file(arguments.paths.input, arguments.paths.output, convert, progress);
    return;
  }
  const HfCheckpoint checkpoint = HfCheckpoint::open(arguments.paths.model);
  if (!checkpoint.config().prequantized_4bit) {
    fail_input("{}: its config.json has no 4-bit quantization_config, there is nothing to dequantize",
               arguments.paths.model);
  }
  if (std::ranges::none_of(checkpoint.names(),
                           [&](const auto& name) { return is_weight4bit_part(checkpoint, name); })) {
    fail_input("{}: no weight is 4-bit, although config.json has a quantization_config; remove it from there",
               arguments.paths.model);
  }
  convert_model(checkpoint, arguments.paths.output, config_text(checkpoint.config()), convert, progress);
}

}  // namespace

void add_dequantize_command(CLI::App& app) {
  auto arguments = std::make_shared<DequantizeArguments>();
  CLI::App* command = app.add_subcommand(
      "dequantize", "Rebuild the weights of a bitsandbytes 4-bit safetensors file or model directory");
  add_conversion_options(*command, arguments->paths, "safetensors file", "Hugging Face directory");
  command->add_option("--dtype", arguments->dtype, "float32, bfloat16, float16, or auto: as before quantization")
      ->capture_default_str();
  command->callback([arguments] {
    run_conversion(arguments->paths.output, [&](Progress& progress) { dequantize(*arguments, progress); });
  });
}

}  // namespace qshard
