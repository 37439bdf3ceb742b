#include "app/conversion_options.h"

#include <cstdio>

#include <fmt/format.h>

namespace qshard {

void add_conversion_options(CLI::App& command, ConversionPaths& paths, const std::string& input_help,
                            const std::string& model_help) {
  auto* what = command.add_option_group("what", "Exactly one of");
  what->add_option("--input", paths.input, input_help);
  what->add_option("--model", paths.model, model_help);
  what->require_option(1);
  command.add_option("--output", paths.output, "File or new directory to write")->required();
}

void run_conversion(const std::string& output, const std::function<void(Progress&)>& convert) {
  Progress progress(stdout);
  convert(progress);
  progress.print(fmt::format("Wrote {}; peak memory {}", output, format_bytes(process_peak_bytes())));
}

}  // namespace qshard
