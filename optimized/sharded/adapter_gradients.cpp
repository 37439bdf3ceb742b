#include "optimized/sharded/adapter_gradients.h"

#include <algorithm>

#include "optimized/device/cuda_check.h"
#include "optimized/rank_sum.h"

namespace qshard::optimized {

namespace {

// Channels of the signals, for each buffer: its gradients are complete; they have been read.
constexpr std::size_t complete(std::size_t buffer) {
  return 2 * buffer;
}
constexpr std::size_t read(std::size_t buffer) {
  return 2 * buffer + 1;
}

}  // namespace

AdapterGradients::AdapterGradients(const ShardLayout& layout, const ShardPlaces& places, const PeerArenas& peers,
                                   cudaStream_t compute, Arena& arena)
    : world_size_(static_cast<std::size_t>(layout.world_size)),
      shards_(shard_count(layout)),
      peers_(&peers),
      compute_(compute) {
  const auto shards = static_cast<std::int64_t>(shards_);
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const Flat& of = layout.units[unit].flats[flat];
      if (!of.trainable) continue;
      const auto element = static_cast<std::int64_t>(size_of(of.dtype));
      const std::int64_t elements = of.shard_bytes / element;
      const std::int64_t begin = (places.offset(unit, flat) - places.trainable_begin()) / element;
      const std::size_t stage = layout.units[unit].stage;
      flats_.push_back({unit, flat, stage, elements, replicated() ? shard_elements_ : stage_elements(stage), begin});
      shard_elements_ += elements;
      whole_elements_ = std::max(whole_elements_, flats_.back().whole_begin + elements * shards);
    }
  }
  for (std::size_t buffer = 0; buffer < (replicated() ? 1 : kBuffers); ++buffer) {
    whole_[buffer] = arena.take(whole_elements_ * 4, "gradients");
  }
  if (world_size_ > 1) sum_ = arena.take(shard_elements_ * 4, "gradients");
  if (replicated()) return;
  signals_.emplace(2 * kBuffers, peers, arena);
  if (!arena.dry_run()) sums_.emplace();
}

std::int64_t AdapterGradients::stage_elements(std::size_t stage) const {
  std::int64_t elements = 0;
  for (const TrainableFlat& flat : flats_) {
    if (flat.stage == stage) elements += flat.shard_elements * static_cast<std::int64_t>(shards_);
  }
  return elements;
}

void AdapterGradients::clear_signals() const {
  if (signals_) signals_->clear(compute_);
}

void AdapterGradients::zero() {
  const Arena::Piece& all = replicated() ? whole_[0] : sum_;
  QSHARD_CUDA_CHECK(cudaMemsetAsync(all.as(), 0, static_cast<std::size_t>(shard_elements_) * 4, compute_));
}

void AdapterGradients::begin_stage(std::size_t stage) {
  if (!sums_) return;
  const std::size_t buffer = buffer_of(stage);
  signals_->wait(read(buffer), compute_);
  const std::size_t bytes = static_cast<std::size_t>(stage_elements(stage)) * 4;
  QSHARD_CUDA_CHECK(cudaMemsetAsync(whole_[buffer].as(), 0, bytes, compute_));
}

void AdapterGradients::end_stage(std::size_t stage) {
  if (!sums_) return;
  const std::size_t buffer = buffer_of(stage);
  done_.record(compute_);
  done_.hold_back(sums_->get());
  signals_->signal(complete(buffer), sums_->get());
  signals_->wait(complete(buffer), sums_->get());
  for (const TrainableFlat& flat : flats_) {
    if (flat.stage == stage) sum_flat(flat, true, sums_->get());
  }
  signals_->signal(read(buffer), sums_->get());
}

float* AdapterGradients::flat(std::size_t unit, std::size_t flat) const {
  const auto found = std::find_if(flats_.begin(), flats_.end(),
                                  [=](const TrainableFlat& known) { return known.unit == unit && known.flat == flat; });
  auto* buffer = whole_[buffer_of(found->stage)].as<float>();
  return buffer == nullptr ? nullptr : buffer + found->whole_begin;
}

void AdapterGradients::sum_flat(const TrainableFlat& flat, bool add, cudaStream_t stream) const {
  const std::int64_t shard = replicated() ? 0 : static_cast<std::int64_t>(peers_->own);
  const std::int64_t buffer = whole_[buffer_of(flat.stage)].offset();
  RankArrays arrays;
  arrays.ranks = static_cast<int>(world_size_);
  for (std::size_t rank = 0; rank < world_size_; ++rank) {
    arrays.of_rank[rank] =
        reinterpret_cast<const float*>(peers_->bases[rank] + buffer) + flat.whole_begin + shard * flat.shard_elements;
  }
  float* out = sum_.as<float>() + flat.shard_begin;
  if (add) {
    add_sum_in_rank_order(arrays, flat.shard_elements, out, stream);
  } else {
    sum_in_rank_order(arrays, flat.shard_elements, out, stream);
  }
}

void AdapterGradients::reduce() {
  if (sums_) {
    summed_.record(sums_->get());
    summed_.hold_back(compute_);
  } else if (world_size_ > 1) {
    for (const TrainableFlat& flat : flats_) sum_flat(flat, false, compute_);
  }
}

const float* AdapterGradients::own() const {
  return world_size_ == 1 ? whole_[0].as<float>() : sum_.as<float>();
}

}  // namespace qshard::optimized
