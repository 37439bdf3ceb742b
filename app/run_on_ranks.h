#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/launch/rank_link.h"
#include "core/run/run_config.h"

namespace qshard {

/// --ranks and --gpus: how many processes to start; 0: none are started.
struct LaunchOptions {
  std::int64_t ranks = 0;
  std::int64_t gpus = 0;
};

/// Adds both options; the result must be kept by the command's callback.
std::shared_ptr<LaunchOptions> add_launch_options(CLI::App& command);

/// What a command does on one rank. `link` joins it to the others; with one process it joins nothing.
using RankWork = std::function<void(const RunConfig& config, RankLink& link)>;

/// Runs `work` as one rank of the job that a launcher started (core/launch/rank_info.h), where fsdp.world_size becomes
/// the number of processes; or alone. With --ranks or --gpus, or where the run is on GPUs and fsdp.world_size above 1,
/// starts the processes instead, waits for them and throws CLI::RuntimeError with their exit code. What `work` throws
/// is told to the other ranks. Throws Error(bad_input) where the ranks have different options.
void run_on_ranks(const LaunchOptions& launch, RunConfig config, const RankWork& work);

}  // namespace qshard
