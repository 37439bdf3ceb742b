#include "reference/sharded_step.h"

#include <algorithm>
#include <span>
#include <utility>

namespace qshard::reference {

// What one rank keeps between its forward and its backward pass.
struct ShardedStep::RankPass {
  std::shared_ptr<const RopeTable<float>> rope;
  std::vector<Eigen::Index> read;                       // the tokens of the last layer whose output the loss reads
  Matrix<float> x;                                      // the running activation; in the backward pass its gradient
  std::vector<Matrix<float>> inputs;                    // of each decoder layer
  std::vector<LayerActivations<float>> activations;     // of each decoder layer; empty with gradient checkpointing
  std::vector<KeyValueCache<float>>* caches = nullptr;  // of each decoder layer, where earlier tokens have gone before
};

namespace {

LayerGradients<float> zero_gradients(const LayerWeights<float>& weights) {
  LayerGradients<float> gradients;
  for (std::size_t i = 0; i < kProjections; ++i) {
    if (weights.projections[i].lora) gradients[i] = zeros_like(*weights.projections[i].lora);
  }
  return gradients;
}

template <typename Values>
std::span<const float> span_of(const Values& values) {
  return {values.data(), static_cast<std::size_t>(values.size())};
}

/// The gradient of one of an adapter's parameters.
std::span<const float> gradient_of(const Lora<float>& gradients, ParameterRole role) {
  switch (role) {
    case ParameterRole::lora_a:
      return span_of(gradients.a);
    case ParameterRole::lora_b:
      return span_of(gradients.b);
    case ParameterRole::lora_bias:
      return span_of(gradients.bias);
    case ParameterRole::dora_magnitude:
      return span_of(gradients.magnitude);
    default:
      return {};
  }
}

/// Tokens of the longest row, those in the caches included.
std::int64_t longest_row(const TokenBatch& batch, const std::vector<KeyValueCache<float>>* caches) {
  if (caches == nullptr) return qshard::longest_row(batch);
  std::vector<std::int64_t> lengths = caches->front().lengths();
  for (std::size_t row = 0; row < lengths.size(); ++row) lengths[row] += batch.offsets[row + 1] - batch.offsets[row];
  return *std::ranges::max_element(lengths);
}

}  // namespace

ShardedStep::ShardedStep(const ModelConfig& config, const EngineOptions& options, ShardedWeights& weights,
                         std::vector<MemoryLedger>& ranks)
    : config_(config), options_(options), weights_(&weights), ranks_(&ranks) {}

LayerContext<float> ShardedStep::context(const RankPass& pass, const TokenBatch& batch, std::int64_t layer,
                                         std::int64_t step, bool training) const {
  LayerContext<float> context;
  context.config = &config_;
  context.rope = pass.rope.get();
  context.batch = &batch;
  context.compute_dtype = options_.compute_dtype;
  context.lora_scaling = options_.lora.alpha / options_.lora.r;
  for (std::size_t i = 0; i < kProjections && !options_.lora.modules.empty(); ++i) {
    const LoraModule module = options_.lora.module(module_path(layer, module_name(static_cast<Projection>(i))));
    context.module_scaling[i] = module.alpha / module.r;
  }
  context.lora_dropout = training ? options_.lora.dropout : 0.0;
  context.dropout_seed = options_.seed;
  context.step = static_cast<std::uint64_t>(step);
  context.layer = static_cast<std::uint32_t>(layer);
  if (layer == config_.num_hidden_layers - 1 && context.lora_dropout == 0 && !pass.read.empty())
    context.read = &pass.read;
  context.needs_input_gradient = layer > 0 || options_.lora.trains_embedding();
  if (pass.caches != nullptr && layer < config_.num_hidden_layers) {
    context.cache = &(*pass.caches)[static_cast<std::size_t>(layer)];
  }
  return context;
}

void ShardedStep::gather_head() {
  if (config_.tie_word_embeddings) weights_->gather(0);
  weights_->gather(static_cast<std::size_t>(config_.num_hidden_layers) + 1);
}

void ShardedStep::release_head() {
  if (config_.tie_word_embeddings) weights_->release(0);
  weights_->release(static_cast<std::size_t>(config_.num_hidden_layers) + 1);
}

void ShardedStep::hold(std::size_t rank, std::int64_t elements) {
  (*ranks_)[rank].add(elements * static_cast<std::int64_t>(sizeof(float)));
}

void ShardedStep::drop(std::size_t rank, std::int64_t elements) {
  (*ranks_)[rank].release(elements * static_cast<std::int64_t>(sizeof(float)));
}

// One table of as many positions as the longest row so far serves all batches, but where the frequencies depend on the
// length of a batch (dynamic).
std::shared_ptr<const RopeTable<float>> ShardedStep::rope_for(std::int64_t longest) {
  const std::int64_t known = rope_ == nullptr ? 0 : rope_->cos.rows();
  if (longest > known || (config_.rope.type == RopeType::dynamic && longest != known)) {
    rope_ = std::make_shared<const RopeTable<float>>(make_rope_table<float>(config_, longest, options_.compute_dtype));
  }
  return rope_;
}

void ShardedStep::embed_all(const std::vector<TokenBatch>& batches, std::vector<RankPass>& passes) {
  weights_->gather(0);
  for (std::size_t rank = 0; rank < batches.size(); ++rank) {
    if (batches[rank].tokens() == 0) continue;
    passes[rank].rope = rope_for(longest_row(batches[rank], passes[rank].caches));
    if (passes[rank].caches == nullptr) passes[rank].read = predicting_positions(batches[rank]);
    passes[rank].x = embed(weights_->ends(rank), batches[rank]);
    round_to(options_.compute_dtype, passes[rank].x);
    hold(rank, passes[rank].x.size());
  }
  weights_->release(0);
}

void ShardedStep::forward_layer(std::int64_t layer, const std::vector<TokenBatch>& batches, std::int64_t step,
                                bool training, std::vector<RankPass>& passes) {
  const auto stage = stage_of_layer(layer);
  weights_->gather(stage);
  for (std::size_t rank = 0; rank < batches.size(); ++rank) {
    if (batches[rank].tokens() == 0) continue;
    RankPass& pass = passes[rank];
    const bool keep = training && options_.gradient_checkpointing == MemorySaving::never;
    LayerActivations<float> activations;
    Matrix<float> y = layer_forward(context(pass, batches[rank], layer, step, training), weights_->layer(layer, rank),
                                    pass.x, keep ? &activations : nullptr);
    if (training) {
      hold(rank, y.size());
      pass.inputs.push_back(std::move(pass.x));
    }
    if (keep) {
      (*ranks_)[rank].add(activations.bytes());
      pass.activations.push_back(std::move(activations));
    }
    pass.x = std::move(y);
  }
  const bool gathers_again =
      options_.sharding == ShardingStrategy::full_shard || options_.sharding == ShardingStrategy::hybrid_shard;
  if (!training || gathers_again) weights_->release(stage);
}

std::vector<double> ShardedStep::losses(const std::vector<TokenBatch>& batches, double gradient_scale,
                                        std::vector<RankPass>& passes, ShardedOptimizer* optimizer) {
  const bool training = optimizer != nullptr;
  const bool trains_head = training && options_.lora.trains_head();
  std::vector<Matrix<float>> head_gradients(batches.size());
  gather_head();
  std::vector<double> losses(batches.size(), 0.0);
  for (std::size_t rank = 0; rank < batches.size(); ++rank) {
    if (batches[rank].tokens() == 0) continue;
    Matrix<float> dx;
    if (trains_head) {
      head_gradients[rank] = Matrix<float>::Zero(config_.vocab_size, config_.hidden_size);
      hold(rank, head_gradients[rank].size());
    }
    const auto head = context(passes[rank], batches[rank], config_.num_hidden_layers, 0, training);
    losses[rank] = output_loss(head, weights_->ends(rank), passes[rank].x, gradient_scale, training ? &dx : nullptr,
                               trains_head ? &head_gradients[rank] : nullptr);
    if (training) passes[rank].x = std::move(dx);
  }
  if (trains_head) {
    optimizer->add_gradients(static_cast<std::size_t>(config_.num_hidden_layers) + 1,
                             [&](std::size_t rank, const Parameter&) { return span_of(head_gradients[rank]); });
    for (std::size_t rank = 0; rank < batches.size(); ++rank) drop(rank, head_gradients[rank].size());
  }
  release_head();
  return losses;
}

void ShardedStep::backward_layer(std::int64_t layer, const std::vector<TokenBatch>& batches, std::int64_t step,
                                 std::vector<RankPass>& passes, ShardedOptimizer& optimizer) {
  const auto stage = stage_of_layer(layer);
  weights_->gather(stage);
  std::vector<LayerGradients<float>> gradients(batches.size());
  for (std::size_t rank = 0; rank < batches.size(); ++rank) {
    const LayerWeights<float> weights = weights_->layer(layer, rank);
    gradients[rank] = zero_gradients(weights);
    if (batches[rank].tokens() == 0) continue;
    RankPass& pass = passes[rank];
    const auto here = context(pass, batches[rank], layer, step, true);
    const Matrix<float> x = std::move(pass.inputs.back());
    pass.inputs.pop_back();
    LayerActivations<float> activations;
    if (options_.gradient_checkpointing != MemorySaving::never) {
      layer_forward(here, weights, x, &activations);
      (*ranks_)[rank].add(activations.bytes());
    } else {
      activations = std::move(pass.activations.back());
      pass.activations.pop_back();
    }
    Matrix<float> dx = layer_backward(here, weights, x, activations, pass.x, gradients[rank]);
    drop(rank, pass.x.size() - dx.size());  // empty where nothing below is trained
    pass.x = std::move(dx);
    (*ranks_)[rank].release(activations.bytes());
    drop(rank, x.size());
  }
  optimizer.add_gradients(stage, [&](std::size_t rank, const Parameter& parameter) {
    return gradient_of(gradients[rank][static_cast<std::size_t>(parameter.projection)], parameter.role);
  });
  weights_->release(stage);
}

void ShardedStep::backward_embedding(const std::vector<TokenBatch>& batches, const std::vector<RankPass>& passes,
                                     ShardedOptimizer& optimizer) {
  std::vector<Matrix<float>> gradients(batches.size());
  for (std::size_t rank = 0; rank < batches.size(); ++rank) {
    if (batches[rank].tokens() == 0) continue;
    gradients[rank] = Matrix<float>::Zero(config_.vocab_size, config_.hidden_size);
    hold(rank, gradients[rank].size());
    embed_backward(batches[rank], passes[rank].x, gradients[rank]);
  }
  optimizer.add_gradients(0, [&](std::size_t rank, const Parameter&) { return span_of(gradients[rank]); });
  for (std::size_t rank = 0; rank < batches.size(); ++rank) drop(rank, gradients[rank].size());
}

std::vector<double> ShardedStep::forward_backward(const std::vector<TokenBatch>& batches, double gradient_scale,
                                                  std::int64_t step, ShardedOptimizer& optimizer) {
  std::vector<RankPass> passes(batches.size());
  embed_all(batches, passes);
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    forward_layer(layer, batches, step, true, passes);
  }
  std::vector<double> sums = losses(batches, gradient_scale, passes, &optimizer);
  for (std::int64_t layer = config_.num_hidden_layers - 1; layer >= 0; --layer) {
    backward_layer(layer, batches, step, passes, optimizer);
  }
  if (options_.lora.trains_embedding()) backward_embedding(batches, passes, optimizer);
  for (std::size_t rank = 0; rank < passes.size(); ++rank) drop(rank, passes[rank].x.size());
  return sums;
}

std::vector<double> ShardedStep::forward_loss(const std::vector<TokenBatch>& batches) {
  std::vector<RankPass> passes(batches.size());
  embed_all(batches, passes);
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    forward_layer(layer, batches, 0, false, passes);
  }
  std::vector<double> sums = losses(batches, 0.0, passes, nullptr);
  for (std::size_t rank = 0; rank < passes.size(); ++rank) drop(rank, passes[rank].x.size());
  return sums;
}

Matrix<float> ShardedStep::forward_logits(const TokenBatch& batch, std::vector<KeyValueCache<float>>& caches) {
  const std::vector<TokenBatch> batches{batch};
  std::vector<RankPass> passes(1);
  passes[0].caches = &caches;
  embed_all(batches, passes);
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    forward_layer(layer, batches, 0, false, passes);
  }
  Matrix<float> last(batch.rows(), passes[0].x.cols());
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    last.row(row) = passes[0].x.row(batch.offsets[static_cast<std::size_t>(row) + 1] - 1);
  }
  drop(0, passes[0].x.size());
  gather_head();
  Matrix<float> logits =
      output_logits(context(passes[0], batch, config_.num_hidden_layers, 0, false), weights_->ends(0), last);
  release_head();
  return logits;
}

}  // namespace qshard::reference
