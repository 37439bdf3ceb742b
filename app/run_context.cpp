#include "app/run_context.h"

#include <cstdlib>
#include <ctime>

#include <fmt/chrono.h>

#include "app/config_options.h"
#include "core/base/processor.h"

namespace qshard {

RunContext run_context(const RunConfig& config, const LoadedModel& model, const std::string& command) {
  const char* source_hash = std::getenv("QSHARD_SOURCE_HASH");
  RunContext context;
  context.command = command;
  context.version = QSHARD_VERSION;
  context.source_hash = source_hash == nullptr ? "" : source_hash;
  context.device = processor_name();
  context.dtype = torch_name(model.options.dtype);
  context.seed = config.training.seed;
  context.world_size = config.fsdp.world_size;
  context.date = fmt::format("{:%FT%T}+00:00", fmt::gmtime(std::time(nullptr)));
  return context;
}

std::string training_command(const std::string& config_path, const Overrides& overrides) {
  std::string command = "qshard train " + shell_word(config_path);
  for (const auto& [key, value] : overrides) command += fmt::format(" --{} {}", key, shell_word(value));
  return command;
}

std::string resuming_command(const std::string& config_path, const Overrides& overrides, const LaunchOptions& launch) {
  Overrides others = overrides;
  std::erase_if(others, [](const auto& given) {
    return given.first == "training.resume_from_checkpoint" || given.first == "training.overwrite_output_dir";
  });
  others.emplace_back("training.resume_from_checkpoint", "true");
  std::string command = "./" + training_command(config_path, others);
  if (launch.ranks > 0) command += fmt::format(" --ranks {}", launch.ranks);
  if (launch.gpus > 0) command += fmt::format(" --gpus {}", launch.gpus);
  return command;
}

}  // namespace qshard
