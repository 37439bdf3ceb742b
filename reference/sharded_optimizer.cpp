#include "reference/sharded_optimizer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/training/adapter_state.h"
#include "reference/collectives.h"
#include "reference/stage_range.h"

namespace qshard::reference {
namespace {

std::size_t shard_elements(const Flat& flat) {
  return static_cast<std::size_t>(flat.shard_bytes) / size_of(flat.dtype);
}

std::size_t first_element(const Slot& slot) {
  return static_cast<std::size_t>(slot.offset) / size_of(slot.parameter.dtype);
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(ShardedWeights& weights, int shards, const AdamWOptions& options,
                                   const ProcessGroup& group, std::vector<MemoryLedger>& ranks)
    : weights_(&weights), shards_(static_cast<std::size_t>(shards)), group_(group), ranks_(&ranks) {
  for (std::size_t unit = 0; unit < weights.units().size(); ++unit) {
    const Unit& of = weights.units()[unit].layout();
    for (std::size_t flat = 0; flat < of.flats.size(); ++flat) {
      if (!of.flats[flat].trainable) continue;
      const std::vector<std::vector<float>> zeros(ranks.size(), std::vector<float>(shard_elements(of.flats[flat])));
      flats_.push_back({unit, flat, zeros, ShardedMoments(of.flats[flat], options, ranks.size())});
      const std::int64_t bytes = std::ssize(zeros[0]) * 4 + flats_.back().moments.bytes();
      for (MemoryLedger& rank : ranks) rank.add(bytes);
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

void ShardedOptimizer::add_gradients(std::size_t stage, const GradientOf& gradient_of) {
  const auto stage_of = [&](const TrainableFlat& flat) { return weights_->units()[flat.unit].layout().stage; };
  for (TrainableFlat& trainable : stage_range(flats_, stage, stage_of)) {
    const std::size_t elements = shard_elements(layout(trainable)) * shards_;
    std::vector<std::vector<float>> full(ranks_->size(), std::vector<float>(elements));
    for (std::size_t rank = 0; rank < full.size(); ++rank) {
      for (const Slot& slot : layout(trainable).slots) {
        std::ranges::copy(gradient_of(rank, slot.parameter),
                          full[rank].begin() + static_cast<std::ptrdiff_t>(first_element(slot)));
      }
      (*ranks_)[rank].add(static_cast<std::int64_t>(elements * sizeof(float)));
    }
    reduce(trainable, full);
    for (MemoryLedger& rank : *ranks_) rank.release(static_cast<std::int64_t>(elements * sizeof(float)));
  }
}

void ShardedOptimizer::reduce(TrainableFlat& trainable, const std::vector<std::vector<float>>& full) {
  std::vector<std::vector<float>> reduced(full.size(), std::vector<float>(trainable.gradients.front().size()));
  reduce_scatter(group_, RankBuffers<const float>(full.begin(), full.end()),
                 RankBuffers<float>(reduced.begin(), reduced.end()));
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
  std::vector<double> of_group(shards_);
  RankBuffers<const std::byte> mine;
  for (const double& square : squares) mine.push_back(std::as_bytes(std::span(&square, 1)));
  all_gather(group_, mine, {std::as_writable_bytes(std::span(of_group))});
  return std::sqrt(std::accumulate(of_group.begin(), of_group.end(), 0.0));
}

void ShardedOptimizer::step(double factor, double learning_rate, std::int64_t step) {
  for (TrainableFlat& trainable : flats_) {
    const DType dtype = layout(trainable).dtype;
    for (std::size_t rank = 0; rank < ranks_->size(); ++rank) {
      const std::span<std::byte> shard = weights_->units()[trainable.unit].shard(trainable.flat, rank);
      const Shape shape{static_cast<std::int64_t>(shard_elements(layout(trainable)))};
      std::vector<float> parameter = to_floats({dtype, shape, shard});
      for (float& g : trainable.gradients[rank]) g *= static_cast<float>(factor);
      trainable.moments.update(rank, parameter, trainable.gradients[rank], learning_rate, step);
      const Tensor updated = from_floats(parameter, dtype, shape);
      std::copy(updated.bytes().begin(), updated.bytes().end(), shard.begin());
    }
  }
}

NamedTensors ShardedOptimizer::state() const {
  NamedTensors tensors;
  for (const TrainableFlat& trainable : flats_) trainable.moments.save(group_, shards_, tensors);
  return tensors;
}

void ShardedOptimizer::load_state(const NamedTensors& tensors) {
  std::size_t used = 0;
  for (TrainableFlat& trainable : flats_) used += trainable.moments.load(group_, shards_, tensors);
  if (group_.has_first()) reject_unknown(tensors, used, "optimizer state");
}

}  // namespace qshard::reference
