#include "app/device_engine.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/sharded/model_plan.h"
#include "optimized/sharded/sharded_engine.h"
#include "optimized/sharded/weight_cache.h"

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
                                                   const EngineOptions& options, const RunBounds& bounds,
                                                   RankLink& link, std::string& note) {
  if (options.world_size != link.world_size()) {
    fail_input("{} is {}, but on GPUs each rank is a process and {} were started: start the ranks with --gpus {}",
               config.where("fsdp.world_size"), options.world_size, link.world_size(), options.world_size);
  }
  if (config.quantization_cache_dir.empty()) {
    const auto source = optimized::make_checkpoint_source(checkpoint);
    return optimized::make_sharded_engine(checkpoint.config(), *source, options, bounds, link);
  }
  optimized::WeightCache cache(checkpoint, options, config.quantization_cache_dir, config.quantization_cache_check,
                               link);
  auto engine = optimized::make_sharded_engine(checkpoint.config(), cache.source(), options, bounds, link);
  note = cache.finish();
  return engine;
}

std::optional<MemoryPlans> plan_device_memory(const ModelConfig& model, const HfCheckpoint* checkpoint,
                                              const EngineOptions& options, const RunBounds& bounds) {
  // Weights that are quantized in loading need the most memory in the dtype that they are computed in.
  const auto source =
      checkpoint != nullptr ? optimized::make_checkpoint_source(*checkpoint) : optimized::make_random_source(1, 1);
  return optimized::plan_run_memory(model, *source, options, bounds);
}

}  // namespace qshard
