#pragma once

#include <cstdint>

#include "core/launch/rank_link.h"
#include "core/sharding/memory_plan.h"
#include "optimized/sharded/rank_state.h"
#include "optimized/sharded/weight_loader.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

/// Cuts the model into shards. Throws Error(bad_input), naming it, for what the GPUs cannot compute yet.
ModelPlan make_model_plan(const ModelConfig& config, const WeightSource& source, const EngineOptions& options,
                          const RunBounds& bounds, int world_size);

/// The memory of a run on the current device within the options' memory_budget. Throws Error(out_of_resources), with
/// the plan and what would make it fit, largest saving first, where the device has too little. Over NCCL, whose ranks
/// must gather in one order, it is collective, and the ranks choose alike: for the device with the least left.
MemoryPlan fit_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader, RankLink& link);

/// The same without a device: context and libraries count as they were measured on one. options.world_size ranks.
MemoryPlans plan_run_memory(const ModelConfig& config, const WeightSource& source, const EngineOptions& options,
                            const RunBounds& bounds);

}  // namespace qshard::optimized
