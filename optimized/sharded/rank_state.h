#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/model/model_config.h"
#include "core/run/engine_options.h"
#include "core/sharding/memory_plan.h"
#include "core/sharding/shard_layout.h"
#include "optimized/sharded/adapter_gradients.h"
#include "optimized/sharded/adapter_optimizer.h"
#include "optimized/sharded/device_batch.h"
#include "optimized/sharded/exchange.h"
#include "optimized/sharded/sharded_step.h"
#include "optimized/sharded/unit_gatherer.h"
#include "optimized/sharded/weight_loader.h"
#include "optimized/sharded/weight_table.h"

namespace qshard::optimized {

/// A model cut into shards, as every rank sees it before any memory is there.
struct ModelPlan {
  ModelConfig config;
  EngineOptions options;
  ShardLayout layout;
  std::map<std::string, Weight4bitInfo> infos;  // of the 4-bit weights, by name
  RunBounds bounds;
};

/// The memory that the run's exchange itself takes; nothing where it takes none.
Arena::Piece take_exchange_room(const ModelPlan& plan, Arena& arena);

/// Everything one rank holds in its arena besides its shards, put there in a fixed order: gathered units, adapter
/// gradients and optimizer state, the batch, and the step's own pieces. With a dry arena it is the plan of all that.
class RankState {
 public:
  /// exchange, and resources' plans and stream: null in a dry run. The references must outlive the state.
  RankState(const ModelPlan& plan, const ShardPlaces& places, const ShardMemory& memory, const MemoryChoice& choice,
            Exchange* exchange, const StepResources& resources);

  /// This rank's trainable shards.
  [[nodiscard]] std::byte* trainable() const { return memory_->at(ShardRange::trainable); }
  [[nodiscard]] UnitGatherer& gatherer() { return gatherer_; }
  [[nodiscard]] AdapterGradients& gradients() { return gradients_; }
  [[nodiscard]] AdapterOptimizer& optimizer() { return optimizer_; }
  [[nodiscard]] DeviceBatch& batch() { return batch_; }
  [[nodiscard]] ShardedStep& step() { return step_; }

 private:
  const ShardMemory* memory_;
  WeightTable table_;
  UnitGatherer gatherer_;
  AdapterGradients gradients_;
  AdapterOptimizer optimizer_;
  DeviceBatch batch_;
  RopeTables rope_;
  ShardedTable embedding_;  // empty where it is gathered
  ShardedStep step_;
};

/// The memory of a run, by a dry run of it: loading, a training step, an evaluation and generation, each at its
/// largest.
MemoryPlan plan_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                       const MemoryChoice& choice);

}  // namespace qshard::optimized
