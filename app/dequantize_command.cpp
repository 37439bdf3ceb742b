#include <cstdio>
#include <memory>

#include "app/commands.h"
#include "app/convert_weights.h"
#include "core/bnb_checkpoint.h"
#include "core/error.h"
#include "reference/dequantize.h"

namespace qshard {
namespace {

struct DequantizeArguments {
  std::string input;
  std::string model;
  std::string output;
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
  const ConvertTensor convert = dequantize_with(arguments);
  if (arguments.model.empty()) {
    convert_file(arguments.input, arguments.output, convert, progress);
    return;
  }
  const HfCheckpoint checkpoint = HfCheckpoint::open(arguments.model);
  if (!checkpoint.config().prequantized_4bit) {
    fail_input("{}: its config.json has no 4-bit quantization_config, there is nothing to dequantize", arguments.model);
  }
  convert_model(checkpoint, arguments.output, config_text(checkpoint.config(), std::nullopt), convert, progress);
}

}  // namespace

void add_dequantize_command(CLI::App& app) {
  auto arguments = std::make_shared<DequantizeArguments>();
  CLI::App* command = app.add_subcommand(
      "dequantize", "Rebuild the weights of a bitsandbytes 4-bit safetensors file or model directory");
  auto* what = command->add_option_group("what", "Exactly one of");
  what->add_option("--input", arguments->input, "safetensors file");
  what->add_option("--model", arguments->model, "Hugging Face directory");
  what->require_option(1);
  command->add_option("--output", arguments->output, "File or new directory to write")->required();
  command->add_option("--dtype", arguments->dtype, "float32, bfloat16, float16, or auto: as before quantization")
      ->capture_default_str();
  command->callback([arguments] {
    Progress progress(stdout);
    dequantize(*arguments, progress);
    progress.print(fmt::format("Wrote {}; peak memory {}", arguments->output, format_bytes(process_peak_bytes())));
  });
}

}  // namespace qshard
