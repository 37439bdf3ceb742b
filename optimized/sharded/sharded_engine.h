#pragma once

#include <cstdint>
#include <memory>

#include "core/launch/rank_link.h"
#include "core/model/model_config.h"
#include "core/run/engine_options.h"
#include "core/sharding/memory_plan.h"
#include "core/training/decoder.h"
#include "core/training/training_engine.h"
#include "optimized/sharded/device_batch.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

/// FSDP-QLoRA on GPUs: the TrainingEngine of one rank, on one GPU, in a job of link.world_size() processes. The frozen
/// shards come together one stage ahead of the arithmetic, by options.transport; adapters' gradients are added up in
/// rank order; losses and norms go over the link. Same options, same bits, run to run.
///
/// bounds: of the run's batches. Chooses the GPU by the rank's place on its host; several ranks
/// share a GPU where there are fewer. Plans the memory first: throws Error(out_of_resources), before any weight is
/// read, with the plan and what would make it fit. Throws Error(bad_input) for what has no kernels yet, naming it, and
/// as WeightSource does.
std::unique_ptr<TrainingEngine> make_sharded_engine(const ModelConfig& config, const WeightSource& source,
                                                    const EngineOptions& options, const RunBounds& bounds,
                                                    RankLink& link);

}  // namespace qshard::optimized
