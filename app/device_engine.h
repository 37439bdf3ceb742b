#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/formats/hf_checkpoint.h"
#include "core/launch/rank_link.h"
#include "core/run/engine_options.h"
#include "core/run/run_config.h"
#include "core/sharding/memory_plan.h"
#include "core/training/batch_bound.h"
#include "core/training/training_engine.h"

namespace qshard {

/// Whether the run computes on GPUs: device cuda, or auto where this build has CUDA and the machine a usable GPU.
bool runs_on_device(const RunConfig& config);

/// The engine of one rank on a GPU. Throws Error(bad_input), saying what to do, in a build without CUDA, for a
/// fsdp.world_size that is not the number of processes, and as optimized::make_sharded_engine. note: what is to be told
/// about quantization.cache_dir, if anything.
std::unique_ptr<TrainingEngine> make_device_engine(const RunConfig& config, const HfCheckpoint& checkpoint,
                                                   const EngineOptions& options, const RunBounds& bounds,
                                                   RankLink& link, std::string& note);

/// What a rank of the run needs of its GPU, found without one. Empty in a build without CUDA. checkpoint: null where
/// its weights are not quantized. Throws Error(bad_input) for what GPUs cannot compute yet.
std::optional<MemoryPlans> plan_device_memory(const ModelConfig& model, const HfCheckpoint* checkpoint,
                                              const EngineOptions& options, const RunBounds& bounds);

}  // namespace qshard
