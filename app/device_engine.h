#pragma once

#include <memory>

#include "core/formats/hf_checkpoint.h"
#include "core/launch/rank_link.h"
#include "core/run/engine_options.h"
#include "core/run/run_config.h"
#include "core/training/batch_bound.h"
#include "core/training/training_engine.h"

namespace qshard {

/// Whether the run computes on GPUs: device cuda, or auto where this build has CUDA and the machine a usable GPU.
bool runs_on_device(const RunConfig& config);

/// The engine of one rank on a GPU. Throws Error(bad_input), saying what to do, in a build without CUDA, for a
/// fsdp.world_size that is not the number of processes, and as optimized::make_sharded_engine.
std::unique_ptr<TrainingEngine> make_device_engine(const RunConfig& config, const HfCheckpoint& checkpoint,
                                                   const EngineOptions& options, const BatchBound& bound,
                                                   RankLink& link);

}  // namespace qshard
