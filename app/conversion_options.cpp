#include "app/conversion_options.h"

#include <cstdio>

#include <fmt/format.h>

#include "app/memory_peak.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/tensor/weight4bit.h"
#include "reference/worker_threads.h"

namespace qshard {

void add_conversion_options(CLI::App& command, ConversionPaths& paths, const std::string& input_help,
                            const std::string& model_help) {
  auto* what = command.add_option_group("what", "Exactly one of");
  what->add_option("--input", paths.input, input_help);
  what->add_option("--model", paths.model, model_help);
  what->require_option(1);
  command.add_option("--output", paths.output, "File or new directory to write")->required();
}

void add_quantization_options(CLI::App& command, QuantizationOptions& options, const std::string& where) {
  command
      .add_option_function<std::string>(
          "--quant-type",
          [&options](const std::string& name) { options.quant_type = parse_quant_type(name, "--quant-type"); },
          "nf4 or fp4" + where)
      ->default_str(std::string(to_string(options.quant_type)));
  command
      .add_option_function<int>(
          "--blocksize",
          [&options](const int& blocksize) {
            if (!is_supported_blocksize(blocksize)) fail_input("--blocksize: {} is not 32, 64, ..., 4096", blocksize);
            options.blocksize = blocksize;
          },
          "Elements that share one absmax: 32, 64, ..., 4096" + where)
      ->default_str(std::to_string(options.blocksize));
  command
      .add_flag("--double-quant,!--no-double-quant", options.double_quant,
                "Quantize absmax itself to 8 bits, as training does" + where)
      ->default_str(options.double_quant ? "true" : "false");
  command
      .add_option_function<std::string>(
          "--quant-storage",
          [&options](const std::string& name) { options.quant_storage = parse_torch_name(name, "--quant-storage"); },
          "uint8, bfloat16, float16 or float32" + where)
      ->default_str(std::string(torch_name(options.quant_storage)));
}

void run_conversion(const std::string& output, const std::function<void(Progress&)>& convert) {
  Progress progress(stdout);
  check_is_new(output);
  remove_leftovers_of(output);
  reference::start_worker_threads();
  MemoryPeak peak;
  convert(progress);
  progress.print(fmt::format("Wrote {}; took {} of memory at most", output, format_bytes(peak.bytes())));
}

}  // namespace qshard
