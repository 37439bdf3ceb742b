#pragma once

#include <cstdint>
#include <vector>

#include "core/model/model_config.h"
#include "core/run/engine_options.h"
#include "core/sharding/memory_plan.h"
#include "optimized/embedding.h"
#include "optimized/llama_ends.h"
#include "optimized/llama_layer.h"
#include "optimized/sharded/adapter_gradients.h"
#include "optimized/sharded/device_batch.h"
#include "optimized/sharded/layer_inputs.h"
#include "optimized/sharded/rope_tables.h"
#include "optimized/sharded/unit_gatherer.h"
#include "optimized/sharded/weight_table.h"
#include "optimized/step_resources.h"

namespace qshard::optimized {

/// Forward and backward passes of one rank: stage by stage, each gathered one ahead of its use. Everything is enqueued
/// on one stream; the host waits for nothing. A rank without tokens gathers like the others and computes nothing.
///
/// Recomputation: of each decoder layer its input and its adapters' h are kept; of the last choice.kept_layers the
/// other activations, too. Before the backward pass of any other layer its activations are made again, except what
/// nothing needs (the down projection). The bits do not depend on it: what is made again is made by the same kernels
/// from the same input.
class ShardedStep {
 public:
  struct Parts {
    const ModelConfig* config = nullptr;
    const EngineOptions* options = nullptr;
    const WeightTable* weights = nullptr;
    const ShardedTable* embedding = nullptr;  // the shards of the embedding's flat; null: it is gathered
    UnitGatherer* gatherer = nullptr;
    AdapterGradients* gradients = nullptr;
    DeviceBatch* batch = nullptr;
    RopeTables* rope = nullptr;
    StepResources resources;
  };

  /// most_tokens: of a batch.
  ShardedStep(const Parts& parts, const MemoryChoice& choice, std::int64_t most_tokens);

  /// Adds the gradients of the batch's summed loss times its gradient_scale; `step` keys dropout.
  void forward_backward(std::int64_t step);
  /// Adds the batch's summed loss, without dropout or gradients.
  void forward_loss();

  /// Pinned host memory that the step uses.
  [[nodiscard]] std::int64_t host_bytes() const;
  /// The end of the model, to be used between acquire_head() and release_head().
  [[nodiscard]] HeadWeights head() const;
  void acquire_head();
  void release_head();
  /// x = the embedding of token ids in device memory, [tokens, hidden]. Every rank calls it, also without tokens.
  void embed_ids(const std::int32_t* ids, std::int64_t tokens, void* x) const;
  [[nodiscard]] const Parts& parts() const { return parts_; }

  /// One double in device memory, to which losses are added.
  [[nodiscard]] double* loss_sum() const { return loss_sum_.as<double>(); }

 private:
  [[nodiscard]] LayerContext context(std::int64_t layer, std::int64_t step, bool training) const;
  [[nodiscard]] Arena::Piece take_rows(std::int64_t rows, const char* name) const;
  [[nodiscard]] bool keeps(std::int64_t layer) const {
    return layer >= parts_.config->num_hidden_layers - choice_.kept_layers;
  }
  [[nodiscard]] std::int64_t row_bytes() const {
    return parts_.config->hidden_size * static_cast<std::int64_t>(size_of(parts_.options->dtype));
  }
  [[nodiscard]] std::int64_t tokens() const { return parts_.batch->rows().tokens; }
  [[nodiscard]] ShardedTable gathered_embedding() const;
  Arena::Piece embed_tokens();
  /// Up to the loss; returns the gradient of the last layer's output, and in `kept` what is kept of each layer.
  Arena::Piece forward(std::int64_t step, std::vector<LayerActivations>& kept);
  void forward_layer(std::int64_t layer, std::int64_t step, bool training, const Arena::Piece& x, const Arena::Piece& y,
                     LayerActivations& activations);
  void backward_layer(std::int64_t layer, std::int64_t step, const Arena::Piece& x, const Arena::Piece& dy,
                      LayerActivations& activations);

  Parts parts_;
  MemoryChoice choice_;
  std::int64_t most_tokens_;
  LayerInputs inputs_;
  Arena::Piece loss_sum_;
};

}  // namespace qshard::optimized
