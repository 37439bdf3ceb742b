#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/run/engine_options.h"
#include "core/training/token_batch.h"
#include "reference/sharded_optimizer.h"
#include "reference/sharded_weights.h"

namespace qshard::reference {

/// One forward and backward pass of the ranks of this process in lockstep, unit by unit: gather a stage on every rank,
/// let every rank compute with it, release it. Collective: the other processes do the same at the same time. FULL_SHARD
/// releases after each use, SHARD_GRAD_OP after the backward pass.
class ShardedStep {
 public:
  ShardedStep(const ModelConfig& config, const EngineOptions& options, ShardedWeights& weights,
              std::vector<MemoryLedger>& ranks);

  /// Adds the gradients of gradient_scale * (sum of the losses of all ranks' batches) to `optimizer`; returns the
  /// summed loss of each rank of this process, not scaled. batches[rank] may be empty. `step` keys dropout.
  std::vector<double> forward_backward(const std::vector<TokenBatch>& batches, double gradient_scale, std::int64_t step,
                                       ShardedOptimizer& optimizer);

  /// Summed loss of each rank's batch without dropout or gradients.
  std::vector<double> forward_loss(const std::vector<TokenBatch>& batches);

  /// Logits after the last token of each of the rows, without dropout, computed by this process's first rank. The
  /// tokens are the next ones of the caches' rows and are appended to them: one cache a decoder layer.
  Matrix<float> forward_logits(const TokenBatch& batch, std::vector<KeyValueCache<float>>& caches);

 private:
  struct RankPass;  // one rank's activations

  [[nodiscard]] LayerContext<float> context(const RankPass& pass, const TokenBatch& batch, std::int64_t layer,
                                            std::int64_t step, bool training) const;
  void gather_head();  // the embedding too where it is the output head
  void release_head();
  std::shared_ptr<const RopeTable<float>> rope_for(std::int64_t longest);
  void embed_all(const std::vector<TokenBatch>& batches, std::vector<RankPass>& passes);
  void forward_layer(std::int64_t layer, const std::vector<TokenBatch>& batches, std::int64_t step, bool training,
                     std::vector<RankPass>& passes);
  std::vector<double> losses(const std::vector<TokenBatch>& batches, double gradient_scale,
                             std::vector<RankPass>& passes, ShardedOptimizer* optimizer);
  void backward_layer(std::int64_t layer, const std::vector<TokenBatch>& batches, std::int64_t step,
                      std::vector<RankPass>& passes, ShardedOptimizer& optimizer);
  void backward_embedding(const std::vector<TokenBatch>& batches, const std::vector<RankPass>& passes,
                          ShardedOptimizer& optimizer);
  void hold(std::size_t rank, std::int64_t elements);
  void drop(std::size_t rank, std::int64_t elements);

  ModelConfig config_;
  EngineOptions options_;
  ShardedWeights* weights_;
  std::vector<MemoryLedger>* ranks_;
  std::shared_ptr<const RopeTable<float>> rope_;  // the last one made
};

}  // namespace qshard::reference
