#pragma once

#include <cstdint>
#include <memory>

#include "core/launch/rank_link.h"
#include "core/model/model_config.h"
#include "core/run/engine_options.h"
#include "core/sharding/memory_plan.h"
#include "core/training/training_engine.h"
#include "optimized/sharded/device_batch.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

/// When a layer's activations are made again in the backward pass instead of kept. The bits do not depend on it.
enum class Recomputation : std::uint8_t {
  always,     // gradient_checkpointing: true
  never,      // false
  automatic,  // as many layers are kept as the memory holds
};

/// Where the layers' inputs wait for the backward pass. The bits do not depend on it.
enum class ActivationOffloading : std::uint8_t {
  automatic,  // on the host where the GPU's memory does not hold them
  always,
  never,
};

/// What the GPUs need to know besides EngineOptions.
struct DeviceRunOptions {
  BatchBound batch;  // the largest batch of training and evaluation
  Recomputation recomputation = Recomputation::automatic;
  ActivationOffloading offloading = ActivationOffloading::automatic;
  std::int64_t memory_budget = 0;  // bytes of the card for this rank, context and libraries included; 0: what is free
};

/// FSDP-QLoRA on GPUs: the TrainingEngine of one rank, on one GPU, in a job of link.world_size() processes. The frozen
/// shards are pulled from the peers' memory one stage ahead of the arithmetic; adapters' gradients are added up in rank
/// order; losses and norms go over the link. Same options, same bits, run to run.
///
/// Chooses the GPU by the rank's place on its host; several ranks share a GPU where there are fewer. Plans the memory
/// first: throws Error(out_of_resources), before any weight is read, with the plan and what would make it fit.
/// Throws Error(bad_input) for what has no kernels yet, naming it, and as WeightSource does.
std::unique_ptr<TrainingEngine> make_sharded_engine(const ModelConfig& config, const WeightSource& source,
                                                    const EngineOptions& options, const DeviceRunOptions& run,
                                                    RankLink& link);

}  // namespace qshard::optimized
