#include "optimized/sharded/adapter_optimizer.h"

#include <algorithm>

#include "optimized/adamw.h"
#include "optimized/device/cuda_check.h"
#include "optimized/rank_sum.h"
#include "optimized/sum.h"

namespace qshard::optimized {

AdapterOptimizer::AdapterOptimizer(const ShardLayout& layout, const ShardPlaces& places, const AdamWOptions& options,
                                   DType moment_dtype, Arena& arena)
    : options_(options),
      moment_dtype_(moment_dtype),
      world_size_(static_cast<std::size_t>(layout.world_size)),
      shards_(shard_count(layout)) {
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const Flat& of = layout.units[unit].flats[flat];
      if (!of.trainable) continue;
      parameter_dtype_ = of.dtype;
      const auto element = static_cast<std::int64_t>(size_of(of.dtype));
      const std::int64_t elements = of.shard_bytes / element;
      const std::int64_t begin = (places.offset(unit, flat) - places.trainable_begin()) / element;
      flats_.push_back({unit, flat, elements, whole_elements_, begin});
      whole_elements_ += elements * static_cast<std::int64_t>(shards_);
      shard_elements_ += elements;
    }
  }
  const std::int64_t moment_bytes = shard_elements_ * static_cast<std::int64_t>(size_of(moment_dtype));
  whole_ = arena.take(whole_elements_ * 4, "gradients");
  if (world_size_ > 1) reduced_ = arena.take(shard_elements_ * 4, "gradients");
  exp_avg_ = arena.take(moment_bytes, "optimizer state");
  exp_avg_sq_ = arena.take(moment_bytes, "optimizer state");
  partials_ = arena.take(kSumPartials * 8, "optimizer state");
  norm_squared_ = arena.take(8, "optimizer state");
  factor_ = arena.take(4, "optimizer state");
}

const AdapterOptimizer::TrainableFlat& AdapterOptimizer::find(std::size_t unit, std::size_t flat) const {
  return *std::find_if(flats_.begin(), flats_.end(),
                       [=](const TrainableFlat& known) { return known.unit == unit && known.flat == flat; });
}

float* AdapterOptimizer::gradients(std::size_t unit, std::size_t flat) const {
  auto* whole = whole_.as<float>();
  return whole == nullptr ? nullptr : whole + find(unit, flat).whole_begin;
}

std::int64_t AdapterOptimizer::first_element(std::size_t unit, std::size_t flat) const {
  return find(unit, flat).shard_begin;
}

void AdapterOptimizer::zero_gradients(cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaMemsetAsync(whole_.as(), 0, static_cast<std::size_t>(whole_elements_) * 4, stream));
}

void AdapterOptimizer::clear(cudaStream_t stream) {
  const std::size_t bytes = static_cast<std::size_t>(shard_elements_) * size_of(moment_dtype_);
  QSHARD_CUDA_CHECK(cudaMemsetAsync(exp_avg_.as(), 0, bytes, stream));
  QSHARD_CUDA_CHECK(cudaMemsetAsync(exp_avg_sq_.as(), 0, bytes, stream));
}

const float* AdapterOptimizer::own_gradients() const {
  return world_size_ == 1 ? whole_.as<float>() : reduced_.as<float>();
}

void AdapterOptimizer::add_up(const PeerArenas& peers, cudaStream_t stream) const {
  for (const TrainableFlat& flat : flats_) {
    const std::int64_t shard = shards_ == 1 ? 0 : static_cast<std::int64_t>(peers.own);
    RankArrays arrays;
    arrays.ranks = static_cast<int>(world_size_);
    for (std::size_t rank = 0; rank < world_size_; ++rank) {
      arrays.of_rank[rank] = reinterpret_cast<const float*>(peers.bases[rank] + whole_.offset()) + flat.whole_begin +
                             shard * flat.shard_elements;
    }
    sum_in_rank_order(arrays, flat.shard_elements, reduced_.as<float>() + flat.shard_begin, stream);
  }
}

void AdapterOptimizer::reduce(const PeerArenas& peers, cudaStream_t stream) {
  if (world_size_ > 1) add_up(peers, stream);
  QSHARD_CUDA_CHECK(cudaMemsetAsync(norm_squared_.as(), 0, 8, stream));
  sum_squares(own_gradients(), shard_elements_, partials_.as<double>(), norm_squared_.as<double>(), stream);
}

void AdapterOptimizer::update(void* parameters, double max_grad_norm, double learning_rate, std::int64_t step,
                              cudaStream_t stream) {
  clip_factor(norm_squared_.as<double>(), max_grad_norm, factor_.as<float>(), stream);
  adamw_update({options_, learning_rate, step, parameter_dtype_, moment_dtype_}, shard_elements_, parameters,
               own_gradients(), factor_.as<float>(), exp_avg_.as(), exp_avg_sq_.as(), stream);
}

}  // namespace qshard::optimized
