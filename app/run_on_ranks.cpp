#include "app/run_on_ranks.h"

#include <fmt/format.h>

#include "app/device_engine.h"
#include "app/local_launcher.h"
#include "core/base/error.h"
#include "core/run/run_options.h"

namespace qshard {
namespace {

constexpr int kMostProcesses = 256;

/// How many processes this one is to start; 0: none. On GPUs each rank is a process, so fsdp.world_size asks for them
/// too.
std::int64_t processes_to_start(const LaunchOptions& launch, const RunConfig& config, const RankInfo& info) {
  if (info.launcher == Launcher::own) return 0;
  const std::int64_t asked = launch.ranks + launch.gpus;
  if (asked > 0 && info.launcher != Launcher::none) {
    const std::string_view option = launch.ranks > 0 ? "--ranks" : "--gpus";
    fail_input("{} starts processes, but {} has started this one already; leave {} out, or {}", option,
               to_string(info.launcher), option, to_string(info.launcher));
  }
  if (asked > 0 || info.launcher != Launcher::none) return asked;
  return config.fsdp.world_size > 1 && runs_on_device(config) ? config.fsdp.world_size : 0;
}

/// Options that may differ from host to host: where things lie.
bool is_place(std::string_view key) {
  return key == "model_name_or_path" || key == "adapter_name_or_path" || key == "training.output_dir" ||
         key == "training.resume_from_checkpoint" || key == "quantization.cache_dir" || key.starts_with("dataset.");
}

void check_same_options(const RunConfig& config, RankLink& link) {
  for (const RunOption& option : run_options()) {
    if (is_place(option.key)) continue;
    const std::string mine = option.get(config);
    const auto all = link.all_gather(std::as_bytes(std::span(mine)));
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      const std::string_view other(reinterpret_cast<const char*>(all[rank].data()), all[rank].size());
      if (other == mine) continue;
      fail_input("{} is {} on rank {}, but {} on rank {}; give all ranks the same configuration", option.key, mine,
                 link.rank(), other, rank);
    }
  }
}

}  // namespace

std::shared_ptr<LaunchOptions> add_launch_options(CLI::App& command) {
  auto launch = std::make_shared<LaunchOptions>();
  auto* ranks = command.add_option("--ranks", launch->ranks, "Start this many processes on this host, a CPU rank each");
  auto* gpus = command.add_option("--gpus", launch->gpus, "Start this many processes on this host, a GPU each");
  for (auto* option : {ranks, gpus}) option->check(CLI::Range(1, kMostProcesses))->group("Processes");
  ranks->excludes(gpus);
  return launch;
}

void run_on_ranks(const LaunchOptions& launch, RunConfig config, const RankWork& work) {
  const RankInfo info = read_rank_info(environment_variable);
  if (launch.gpus > 0) config.device = Device::cuda;
  if (launch.ranks > 0) config.device = Device::cpu;
  check_run_config(config);  // before any process is started, so that it is said once
  if (const std::int64_t count = processes_to_start(launch, config, info); count > 0) {
    throw CLI::RuntimeError(launch_ranks(static_cast<int>(count)));
  }
  if (info.launcher == Launcher::none) {
    RankLink alone = RankLink::connect(info, {});
    work(config, alone);
    return;
  }
  try {
    RankLink link = RankLink::connect(info, {.version = QSHARD_VERSION});
    if (link.is_first() && config.has("fsdp.world_size") && config.fsdp.world_size != info.world_size) {
      fmt::print("note: {} is {}, but {} decides: {} ranks\n", config.where("fsdp.world_size"), config.fsdp.world_size,
                 to_string(info.launcher), info.world_size);
    }
    config.fsdp.world_size = info.world_size;
    tell_failures(link, [&] {
      check_run_config(config);
      check_same_options(config, link);
      work(config, link);
    });
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("rank {}: {}", info.rank, error.what()));
  }
}

}  // namespace qshard
