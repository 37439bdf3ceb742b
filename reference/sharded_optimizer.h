#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/run/adamw_options.h"
#include "core/training/training_engine.h"
#include "reference/sharded_moments.h"
#include "reference/sharded_weights.h"

namespace qshard::reference {

/// Gradients and AdamW state of the adapters, each rank of this process holding those of its own shards (whole ones
/// under NO_SHARD). Gradients are summed and kept in float, the moments as options.moments says.
class ShardedOptimizer {
 public:
  /// shards: ShardLayout's.
  ShardedOptimizer(ShardedWeights& weights, int shards, const AdamWOptions& options, const ProcessGroup& group,
                   std::vector<MemoryLedger>& ranks);

  void zero_gradients();

  /// A rank's gradient of a trained parameter, in its order in the file; empty for a rank without tokens.
  using GradientOf = std::function<std::span<const float>(std::size_t rank, const Parameter& parameter)>;

  /// Adds the ranks' gradients of a stage's parameters: reduce-scattered into the shards, over all
  /// groups. Collective.
  void add_gradients(std::size_t stage, const GradientOf& gradient_of);

  /// L2 norm of all gradients: the sums of squares (in double) of one group's ranks, added in rank order. Collective.
  [[nodiscard]] double gradient_norm() const;

  /// One AdamW step of each rank on its shards, with all gradients multiplied by `factor` first.
  void step(double factor, double learning_rate, std::int64_t step);

  /// The moments, whole, by PEFT name (see TrainingEngine). Collective.
  [[nodiscard]] NamedTensors state() const;
  void load_state(const NamedTensors& tensors);

 private:
  struct TrainableFlat {
    std::size_t unit;
    std::size_t flat;
    std::vector<std::vector<float>> gradients;  // index = rank of this process; one element a shard element
    ShardedMoments moments;
  };

  [[nodiscard]] const Flat& layout(const TrainableFlat& trainable) const;
  void reduce(TrainableFlat& trainable, const std::vector<std::vector<float>>& full);

  ShardedWeights* weights_;
  std::size_t shards_;
  ProcessGroup group_;
  std::vector<MemoryLedger>* ranks_;
  std::vector<TrainableFlat> flats_;
};

}  // namespace qshard::reference
