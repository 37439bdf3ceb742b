#include "app/device_engine.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard {
namespace {

bool has_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

}  // namespace

bool runs_on_device(const RunConfig& config) {
  return config.device == Device::cuda || (config.device == Device::automatic && has_device());
}

std::unique_ptr<TrainingEngine> make_device_engine(const RunConfig& config, const HfCheckpoint& checkpoint,
                                                   const EngineOptions& options, const BatchBound& bound,
                                                   RankLink& link) {
  if (options.world_size != link.world_size()) {
    fail_input("{} is {}, but on GPUs each rank is a process and {} were started: start the ranks with --gpus {}",
               config.where("fsdp.world_size"), options.world_size, link.world_size(), options.world_size);
  }
  optimized::DeviceRunOptions run;
  run.batch = bound;
  run.recomputation =
      options.gradient_checkpointing ? optimized::Recomputation::always : optimized::Recomputation::never;
  const auto source = optimized::make_checkpoint_source(checkpoint);
  return optimized::make_sharded_engine(checkpoint.config(), *source, options, run, link);
}

}  // namespace qshard
