#include "optimized/sharded/sharded_step.h"

#include <utility>

#include "core/base/trace_range.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

ShardedStep::ShardedStep(const Parts& parts, const MemoryChoice& choice, std::int64_t most_tokens)
    : parts_(parts),
      choice_(choice),
      most_tokens_(most_tokens),
      inputs_(parts.config->num_hidden_layers, most_tokens * row_bytes(), choice.inputs_on_host, parts_.resources),
      loss_sum_(parts.resources.arena->take(8, "token rows")) {}

std::int64_t ShardedStep::host_bytes() const {
  return choice_.inputs_on_host ? parts_.config->num_hidden_layers * most_tokens_ * row_bytes() : 0;
}

LayerContext ShardedStep::context(std::int64_t layer, std::int64_t step, bool training) const {
  LayerContext context;
  context.config = parts_.config;
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
          parts_.config->vocab_size,
          parts_.config->hidden_size,
          parts_.config->rms_norm_eps,
          parts_.options->dtype};
}

Arena::Piece ShardedStep::take_rows(std::int64_t rows, const char* name) const {
  return parts_.resources.arena->take(rows * row_bytes(), name);
}

void ShardedStep::acquire_head() {
  if (parts_.config->tie_word_embeddings) parts_.gatherer->acquire(0);
  parts_.gatherer->acquire(stage_of_layer(parts_.config->num_hidden_layers));
}

void ShardedStep::release_head() {
  parts_.gatherer->release(stage_of_layer(parts_.config->num_hidden_layers));
  if (parts_.config->tie_word_embeddings) parts_.gatherer->release(0);
}

ShardedTable ShardedStep::gathered_embedding() const {
  const WeightTable& weights = *parts_.weights;
  const Slot& slot = weights.slot(weights.embedding());
  ShardedTable table;
  table.shards[0] = parts_.gatherer->flat(weights.embedding().unit, weights.embedding().flat);
  table.shard_bytes = slot.offset + slot.parameter.bytes();
  table.count = 1;
  return table;
}

void ShardedStep::embed_ids(const std::int32_t* ids, std::int64_t tokens, void* x) const {
  const WeightTable& weights = *parts_.weights;
  if (parts_.embedding == nullptr) parts_.gatherer->acquire(0);
  if (tokens > 0) {
    parts_.resources.launch([&] {
      embed(parts_.embedding == nullptr ? gathered_embedding() : *parts_.embedding,
            weights.slot(weights.embedding()).offset, parts_.options->dtype, parts_.config->hidden_size, ids, tokens, x,
            parts_.resources.stream);
    });
  }
  if (parts_.embedding == nullptr) parts_.gatherer->release(0);
}

Arena::Piece ShardedStep::embed_tokens() {
  Arena::Piece x = take_rows(tokens(), "layer inputs");
  if (tokens() > 0) {
    parts_.resources.launch([&] { parts_.rope->cover(parts_.batch->rows().longest, parts_.resources.stream); });
  }
  embed_ids(parts_.batch->rows().input_ids, tokens(), x.as());
  return x;
}

void ShardedStep::forward_layer(std::int64_t layer, std::int64_t step, bool training, const Arena::Piece& x,
                                const Arena::Piece& y, LayerActivations& activations) {
  UnitGatherer& gatherer = *parts_.gatherer;
  gatherer.acquire(stage_of_layer(layer));
  const bool last = layer + 1 == parts_.config->num_hidden_layers;  // after it comes the head
  if (!last || choice_.early_head) gatherer.prefetch(stage_of_layer(layer + 1));
  if (tokens() > 0) {
    const LayerWeights weights = parts_.weights->layer(layer, gatherer, nullptr);
    layer_forward(parts_.resources, context(layer, step, training), weights, x.as(), y.as(), training && keeps(layer),
                  activations);
  }
  gatherer.release(stage_of_layer(layer));
}

void ShardedStep::backward_layer(std::int64_t layer, std::int64_t step, const Arena::Piece& x, const Arena::Piece& dy,
                                 LayerActivations& activations) {
  UnitGatherer& gatherer = *parts_.gatherer;
  gatherer.acquire(stage_of_layer(layer));
  if (layer > 0) gatherer.prefetch(stage_of_layer(layer - 1));
  parts_.gradients->begin_stage(stage_of_layer(layer));
  if (tokens() > 0) {
    const LayerWeights weights = parts_.weights->layer(layer, gatherer, parts_.gradients);
    const LayerContext here = context(layer, step, true);
    if (!keeps(layer)) layer_activations(parts_.resources, here, weights, x.as(), activations);
    layer_backward(parts_.resources, here, weights, x.as(), layer > 0, dy.as(), activations);
  }
  parts_.gradients->end_stage(stage_of_layer(layer));
  gatherer.release(stage_of_layer(layer));
}

Arena::Piece ShardedStep::forward(std::int64_t step, std::vector<LayerActivations>& kept) {
  const TraceRange range("forward");
  const std::int64_t layers = parts_.config->num_hidden_layers;
  Arena::Piece x = embed_tokens();
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    Arena::Piece y = take_rows(tokens(), "layer inputs");
    LayerActivations activations;
    forward_layer(layer, step, true, x, y, activations);
    if (!keeps(layer)) activations.give_back();
    kept[static_cast<std::size_t>(layer)] = std::move(activations);
    inputs_.push(std::move(x), tokens() * row_bytes());
    x = std::move(y);
  }
  acquire_head();
  if (tokens() > 0) {
    output_loss(parts_.resources, head(), parts_.batch->rows(), parts_.batch->gradient_scale(), x.as(), loss_sum());
  }
  release_head();
  return x;
}

void ShardedStep::forward_backward(std::int64_t step) {
  const std::int64_t layers = parts_.config->num_hidden_layers;
  std::vector<LayerActivations> kept(static_cast<std::size_t>(layers));
  const Arena::Piece gradient = forward(step, kept);
  const TraceRange range("backward");
  for (std::int64_t layer = layers - 1; layer >= 0; --layer) {
    const Arena::Piece input = inputs_.pop();
    LayerActivations activations = std::move(kept[static_cast<std::size_t>(layer)]);
    backward_layer(layer, step, input, gradient, activations);
  }
}

void ShardedStep::forward_loss() {
  Arena::Piece x = embed_tokens();
  for (std::int64_t layer = 0; layer < parts_.config->num_hidden_layers; ++layer) {
    Arena::Piece y = take_rows(tokens(), "layer inputs");
    LayerActivations activations;
    forward_layer(layer, 0, false, x, y, activations);
    x = std::move(y);
  }
  acquire_head();
  if (tokens() > 0) output_loss(parts_.resources, head(), parts_.batch->rows(), nullptr, x.as(), loss_sum());
  release_head();
}

}  // namespace qshard::optimized
