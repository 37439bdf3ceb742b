#pragma once

#include <string>

#include "app/load_model.h"
#include "app/run_on_ranks.h"
#include "core/run/run_config.h"
#include "core/training/metrics.h"

namespace qshard {

/// The context of a training run that begins now. `command` is what the user typed. The sources' hash is taken from the
/// environment variable QSHARD_SOURCE_HASH, which ./qshard sets after it has built the program.
RunContext run_context(const RunConfig& config, const LoadedModel& model, const std::string& command);

/// "qshard train CONFIG --key value ...", quoted for a shell.
std::string training_command(const std::string& config_path, const Overrides& overrides);

/// The same as the user types it to go on with that run from its newest checkpoint.
std::string resuming_command(const std::string& config_path, const Overrides& overrides, const LaunchOptions& launch);

}  // namespace qshard
