#include "optimized/sharded/sharded_step.h"

#include <utility>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

// Stage 0 is the embedding, stage i + 1 decoder layer i, the last one the head.
std::size_t stage_of(std::int64_t layer) {
  return static_cast<std::size_t>(layer + 1);
}

}  // namespace

ShardedStep::ShardedStep(const Parts& parts, std::int64_t kept_layers)
    : parts_(parts),
      config_(parts.config),
      resources_(parts.resources),
      kept_layers_(kept_layers),
      loss_sum_(parts.resources.arena->take(8, "token rows")) {}

LayerContext ShardedStep::context(std::int64_t layer, std::int64_t step, bool training) const {
  LayerContext context;
  context.config = config_;
  context.rows = &parts_.batch->rows();
  context.cos = parts_.rope->cos();
  context.sin = parts_.rope->sin();
  context.dtype = parts_.options->dtype;
  context.lora_dropout = training ? parts_.options->lora.dropout : 0.0;
  context.dropout_seed = parts_.options->seed;
  context.step = static_cast<std::uint64_t>(step);
  context.layer = layer;
  return context;
}

HeadWeights ShardedStep::head() const {
  const WeightTable& weights = *parts_.weights;
  return {weights.parameter(weights.final_norm(), *parts_.gatherer),
          weights.parameter(weights.output_head(), *parts_.gatherer),
          config_->vocab_size,
          config_->hidden_size,
          config_->rms_norm_eps,
          parts_.options->dtype};
}

Arena::Piece ShardedStep::take_rows(std::int64_t rows, const char* name) const {
  return resources_.arena->take(rows * row_bytes(), name);
}

void ShardedStep::acquire_head() {
  if (config_->tie_word_embeddings) parts_.gatherer->acquire(0);
  parts_.gatherer->acquire(stage_of(config_->num_hidden_layers));
}

void ShardedStep::release_head() {
  parts_.gatherer->release(stage_of(config_->num_hidden_layers));
  if (config_->tie_word_embeddings) parts_.gatherer->release(0);
}

Arena::Piece ShardedStep::embed_tokens() {
  Arena::Piece x = take_rows(tokens(), "layer inputs");
  const WeightTable& weights = *parts_.weights;
  if (tokens() == 0) return x;
  resources_.launch([&] {
    parts_.rope->cover(parts_.batch->rows().longest, resources_.stream);
    embed(*parts_.embedding, weights.slot(weights.embedding()).offset, parts_.options->dtype, config_->hidden_size,
          parts_.batch->rows().input_ids, tokens(), x.as(), resources_.stream);
  });
  return x;
}

void ShardedStep::forward_layer(std::int64_t layer, std::int64_t step, bool training, const Arena::Piece& x,
                                const Arena::Piece& y, LayerActivations& activations) {
  UnitGatherer& gatherer = *parts_.gatherer;
  gatherer.acquire(stage_of(layer));
  gatherer.prefetch(stage_of(layer + 1));  // after the last layer comes the head
  if (tokens() > 0) {
    const LayerWeights weights = parts_.weights->layer(layer, gatherer, nullptr);
    layer_forward(resources_, context(layer, step, training), weights, x.as(), y.as(), activations);
    activations.masks = {};
  }
  gatherer.release(stage_of(layer));
}

void ShardedStep::backward_layer(std::int64_t layer, std::int64_t step, const Arena::Piece& x, const Arena::Piece& dy,
                                 LayerActivations& activations) {
  UnitGatherer& gatherer = *parts_.gatherer;
  gatherer.acquire(stage_of(layer));
  if (layer > 0) gatherer.prefetch(stage_of(layer - 1));
  if (tokens() > 0) {
    const LayerWeights weights = parts_.weights->layer(layer, gatherer, parts_.optimizer);
    const LayerContext here = context(layer, step, true);
    if (!keeps(layer)) layer_activations(resources_, here, weights, x.as(), activations);
    layer_backward(resources_, here, weights, x.as(), layer > 0, dy.as(), activations);
  }
  gatherer.release(stage_of(layer));
}

void ShardedStep::forward_backward(std::int64_t step) {
  const std::int64_t layers = config_->num_hidden_layers;
  std::vector<Arena::Piece> inputs;  // of each layer; then the head's
  std::vector<LayerActivations> kept(static_cast<std::size_t>(layers));
  inputs.push_back(embed_tokens());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    Arena::Piece y = take_rows(tokens(), "layer inputs");
    LayerActivations activations;
    forward_layer(layer, step, true, inputs.back(), y, activations);
    if (keeps(layer)) kept[static_cast<std::size_t>(layer)] = std::move(activations);
    inputs.push_back(std::move(y));
  }
  acquire_head();
  if (tokens() > 0) {
    output_loss(resources_, head(), parts_.batch->rows(), parts_.batch->gradient_scale(), inputs.back().as(),
                loss_sum());
  }
  release_head();
  const Arena::Piece dx = std::move(inputs.back());
  inputs.pop_back();
  for (std::int64_t layer = layers - 1; layer >= 0; --layer) {
    LayerActivations activations = std::move(kept[static_cast<std::size_t>(layer)]);
    backward_layer(layer, step, inputs.back(), dx, activations);
    inputs.pop_back();
  }
}

Arena::Piece ShardedStep::forward_layers() {
  Arena::Piece x = embed_tokens();
  for (std::int64_t layer = 0; layer < config_->num_hidden_layers; ++layer) {
    Arena::Piece y = take_rows(tokens(), "layer inputs");
    LayerActivations activations;
    forward_layer(layer, 0, false, x, y, activations);
    x = std::move(y);
  }
  return x;
}

void ShardedStep::forward_loss() {
  const Arena::Piece x = forward_layers();
  acquire_head();
  if (tokens() > 0) output_loss(resources_, head(), parts_.batch->rows(), nullptr, x.as(), loss_sum());
  release_head();
}

void ShardedStep::forward_logits(void* logits) {
  const Arena::Piece x = forward_layers();
  const TokenRows& rows = parts_.batch->rows();
  const Arena::Piece last = take_rows(rows.rows, "head");
  acquire_head();
  if (tokens() > 0) {
    resources_.launch([&] {
      const ShardedTable activations{{x.as<std::byte>()}, rows.tokens * row_bytes(), 1};
      embed(activations, 0, parts_.options->dtype, config_->hidden_size, parts_.batch->last_tokens(), rows.rows,
            last.as(), resources_.stream);
    });
    output_logits(resources_, head(), rows.rows, last.as(), logits);
  }
  release_head();
}

}  // namespace qshard::optimized
