#include "app/conversion_options.h"

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "app/memory_peak.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
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

void run_conversion(const std::string& output, const std::function<void(Progress&)>& convert) {
  Progress progress(stdout);
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::symlink_status(output, ignored))) {
    fail_input("{}: is already there and is not replaced; name a new file or directory", output);
  }
  remove_leftovers_of(output);
  reference::start_worker_threads();
  MemoryPeak peak;
  convert(progress);
  progress.print(fmt::format("Wrote {}; took {} of memory at most", output, format_bytes(peak.bytes())));
}

}  // namespace qshard
