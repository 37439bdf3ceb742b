#pragma once

#include <cstdint>

#include "core/sharding/memory_plan.h"
#include "optimized/sharded/rank_state.h"
#include "optimized/sharded/sharded_engine.h"
#include "optimized/sharded/weight_loader.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

/// Cuts the model into shards. Throws Error(bad_input), naming it, for what the GPUs cannot compute yet.
ModelPlan make_model_plan(const ModelConfig& config, const WeightSource& source, const EngineOptions& options,
                          const BatchBound& bound, int world_size);

/// The memory of a run on the current device within run.memory_budget, with as many kept layers as it holds where
/// recomputation is automatic. Throws Error(out_of_resources), with the plan and what would make it fit, largest saving
/// first, where the device has too little.
MemoryPlan fit_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                      const DeviceRunOptions& run);

}  // namespace qshard::optimized
