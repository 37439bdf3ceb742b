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

}  // namespace qshard
