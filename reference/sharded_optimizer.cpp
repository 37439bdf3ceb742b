#include "reference/sharded_optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/formats/peft_adapter.h"
#include "core/run/engine_options.h"
#include "core/sharding/sharding_strategy.h"
#include "core/training/adapter_state.h"
#include "reference/adamw.h"
#include "reference/collectives.h"
#include "reference/sharded_adapter.h"

namespace qshard::reference {
namespace {

std::size_t shard_elements(const Flat& flat) {
  return static_cast<std::size_t>(flat.shard_bytes) / size_of(flat.dtype);
}

std::size_t first_element(const Slot& slot) {
  return static_cast<std::size_t>(slot.offset) / size_of(slot.parameter.dtype);
}

// The gradient that belongs to an adapter's parameter, in its layer's gradients.
const Matrix<float>& gradient_of(const LayerGradients<float>& gradients, const Parameter& parameter) {
  const Lora<float>& gradient = gradients[static_cast<std::size_t>(parameter.projection)];
  return parameter.role == ParameterRole::lora_a ? gradient.a : gradient.b;
}

std::vector<float> flatten(const Flat& flat, const LayerGradients<float>& gradients, std::size_t elements) {
  std::vector<float> full(elements, 0.0F);
  for (const Slot& slot : flat.slots) {
    const Matrix<float>& gradient = gradient_of(gradients, slot.parameter);
    std::copy(gradient.data(), gradient.data() + gradient.size(), full.begin() + first_element(slot));
  }
  return full;
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(ShardedWeights& weights, ShardingStrategy sharding, const AdamWOptions& options,
                                   const ProcessGroup& group, std::vector<MemoryLedger>& ranks)
    : weights_(&weights), sharding_(sharding), options_(options), group_(group), ranks_(&ranks) {
  for (std::size_t unit = 0; unit < weights.units().size(); ++unit) {
    const Unit& of = weights.units()[unit].layout();
    for (std::size_t flat = 0; flat < of.flats.size(); ++flat) {
      if (!of.flats[flat].trainable) continue;
      const std::vector<std::vector<float>> zeros(ranks.size(), std::vector<float>(shard_elements(of.flats[flat])));
      flats_.push_back({unit, flat, zeros, zeros, zeros});
      for (MemoryLedger& rank : ranks) rank.add(static_cast<std::int64_t>(3 * zeros[0].size() * sizeof(float)));
    }
  }
}

const Flat& ShardedOptimizer::layout(const TrainableFlat& trainable) const {
  return weights_->units()[trainable.unit].layout().flats[trainable.flat];
}

void ShardedOptimizer::zero_gradients() {
  for (TrainableFlat& trainable : flats_) {
    for (std::vector<float>& shard : trainable.gradients) std::fill(shard.begin(), shard.end(), 0.0F);
  }
}

void ShardedOptimizer::add_layer_gradients(std::int64_t layer, const std::vector<LayerGradients<float>>& gradients) {
  const auto stage = stage_of_layer(layer);
  const std::size_t parts = replicated() ? 1 : group_.world_size();
  for (TrainableFlat& trainable : flats_) {
    if (weights_->units()[trainable.unit].layout().stage != stage) continue;
    const std::size_t elements = shard_elements(layout(trainable)) * parts;
    std::vector<std::vector<float>> full;
    for (std::size_t rank = 0; rank < ranks_->size(); ++rank) {
      full.push_back(flatten(layout(trainable), gradients[rank], elements));
      (*ranks_)[rank].add(static_cast<std::int64_t>(elements * sizeof(float)));
    }
    reduce(trainable, full);
    for (MemoryLedger& rank : *ranks_) rank.release(static_cast<std::int64_t>(elements * sizeof(float)));
  }
}

void ShardedOptimizer::reduce(TrainableFlat& trainable, std::vector<std::vector<float>>& full) {
  std::vector<std::vector<float>> reduced(full.size());
  if (replicated()) {
    all_reduce(group_, RankBuffers<float>(full.begin(), full.end()));
    reduced.swap(full);
  } else {
    for (std::vector<float>& shard : reduced) shard.resize(trainable.gradients.front().size());
    reduce_scatter(group_, RankBuffers<const float>(full.begin(), full.end()),
                   RankBuffers<float>(reduced.begin(), reduced.end()));
  }
  for (std::size_t rank = 0; rank < reduced.size(); ++rank) {
    std::vector<float>& sum = trainable.gradients[rank];
    std::transform(sum.begin(), sum.end(), reduced[rank].begin(), sum.begin(), std::plus<>());
  }
}

double ShardedOptimizer::gradient_norm() const {
  std::vector<double> squares(ranks_->size(), 0.0);
  for (const TrainableFlat& trainable : flats_) {
    for (std::size_t rank = 0; rank < squares.size(); ++rank) {
      for (const float g : trainable.gradients[rank]) squares[rank] += static_cast<double>(g) * g;
    }
  }
  if (replicated()) return std::sqrt(squares.front());
  RankBuffers<double> buffers;
  for (double& square : squares) buffers.emplace_back(&square, 1);
  all_reduce(group_, buffers);
  return std::sqrt(squares.front());
}

void ShardedOptimizer::step(double factor, double learning_rate, std::int64_t step) {
  for (TrainableFlat& trainable : flats_) {
    const DType dtype = layout(trainable).dtype;
    for (std::size_t rank = 0; rank < ranks_->size(); ++rank) {
      const std::span<std::byte> shard = weights_->units()[trainable.unit].shard(trainable.flat, rank);
      const Shape shape{static_cast<std::int64_t>(shard_elements(layout(trainable)))};
      std::vector<float> parameter = to_floats({dtype, shape, shard});
      for (float& g : trainable.gradients[rank]) g *= static_cast<float>(factor);
      adamw_update(parameter, trainable.gradients[rank], trainable.exp_avg[rank], trainable.exp_avg_sq[rank], options_,
                   dtype, learning_rate, step);
      const Tensor updated = from_floats(parameter, dtype, shape);
      std::copy(updated.bytes().begin(), updated.bytes().end(), shard.begin());
    }
  }
}

std::vector<float> ShardedOptimizer::whole(const std::vector<std::vector<float>>& shards) const {
  if (replicated()) return shards.front();
  std::vector<float> all(shards.front().size() * group_.world_size());
  RankBuffers<const std::byte> mine;
  for (const std::vector<float>& shard : shards) mine.push_back(std::as_bytes(std::span(shard)));
  all_gather(group_, mine, {std::as_writable_bytes(std::span(all))});
  return all;
}

NamedTensors ShardedOptimizer::state() const {
  NamedTensors tensors;
  for (const TrainableFlat& trainable : flats_) {
    const std::vector<float> exp_avg = whole(trainable.exp_avg);
    const std::vector<float> exp_avg_sq = whole(trainable.exp_avg_sq);
    if (!group_.has_first()) continue;
    for (const Slot& slot : layout(trainable).slots) {
      const auto values = [&slot](const std::vector<float>& flat) {
        Tensor tensor(DType::f32, slot.parameter.shape);
        std::copy_n(flat.begin() + static_cast<std::ptrdiff_t>(first_element(slot)), tensor.as<float>().size(),
                    tensor.as<float>().begin());
        return tensor;
      };
      const std::string name = peft_name(slot.parameter.name);
      tensors[name + ".exp_avg"] = values(exp_avg);
      tensors[name + ".exp_avg_sq"] = values(exp_avg_sq);
    }
  }
  return tensors;
}

void ShardedOptimizer::load(const Slot& slot, const NamedTensors& tensors, const std::string& name,
                            std::vector<std::vector<float>>& shards) {
  std::vector<float> values;
  if (group_.has_first()) values = named_floats(tensors, name, slot.parameter.shape);
  broadcast(group_, values);
  cut_shards(slot, values, group_, replicated(), shards);
}

void ShardedOptimizer::load_state(const NamedTensors& tensors) {
  std::size_t used = 0;
  for (TrainableFlat& trainable : flats_) {
    for (const Slot& slot : layout(trainable).slots) {
      const std::string name = peft_name(slot.parameter.name);
      load(slot, tensors, name + ".exp_avg", trainable.exp_avg);
      load(slot, tensors, name + ".exp_avg_sq", trainable.exp_avg_sq);
      used += 2;
    }
  }
  if (group_.has_first()) reject_unknown(tensors, used, "optimizer state");
}

}  // namespace qshard::reference
