#include "optimized/sharded/adapter_gradients.h"

#include <algorithm>

#include "core/base/trace_range.h"
#include "optimized/device/cuda_check.h"
#include "optimized/rank_sum.h"

namespace qshard::optimized {

AdapterGradients::AdapterGradients(const ShardLayout& layout, const ShardPlaces& places, Exchange* exchange,
                                   cudaStream_t compute, Arena& arena)
    : world_size_(layout.world_size), shards_(layout.shards), exchange_(exchange), compute_(compute) {
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const Flat& of = layout.units[unit].flats[flat];
      if (!of.trainable) continue;
      const auto element = static_cast<std::int64_t>(size_of(of.dtype));
      const std::int64_t elements = of.shard_bytes / element;
      const std::size_t stage = layout.units[unit].stage;
      const std::int64_t begin = replicated() ? shard_elements_ : stage_elements(stage);
      flats_.push_back({unit, flat, stage, {elements, begin}, places.offset(unit, flat) / element});
      shard_elements_ += elements;
    }
  }
  const GradientRoom room = gradient_room(layout);
  for (std::size_t index = 0; index < room.buffers; ++index) {
    whole_[index] = arena.take(room.elements * 4, "gradients");
  }
  if (world_size_ > 1) sum_ = arena.take(shard_elements_ * 4, "gradients");
  if (!replicated() && !arena.dry_run()) sums_.emplace();
}

std::int64_t AdapterGradients::stage_elements(std::size_t stage) const {
  std::int64_t elements = 0;
  for (const TrainableFlat& flat : flats_) {
    if (flat.stage == stage) elements += flat.whole.shard_elements * shards_;
  }
  return elements;
}

void AdapterGradients::zero() {
  if (replicated() && world_size_ > 1) exchange_->await_release(buffer(0), compute_);
  const Arena::Piece& all = replicated() ? whole_[0] : sum_;
  QSHARD_CUDA_CHECK(cudaMemsetAsync(all.as(), 0, static_cast<std::size_t>(shard_elements_) * 4, compute_));
}

void AdapterGradients::begin_stage(std::size_t stage) {
  if (!sums_) return;
  const std::size_t index = buffer_of(stage);
  read_[index].hold_back(compute_);
  exchange_->await_release(buffer(index), compute_);
  const std::size_t bytes = static_cast<std::size_t>(stage_elements(stage)) * 4;
  QSHARD_CUDA_CHECK(cudaMemsetAsync(whole_[index].as(), 0, bytes, compute_));
}

void AdapterGradients::end_stage(std::size_t stage) {
  if (!sums_) return;
  done_.record(compute_);
  done_.hold_back(sums_->get());
  sum_stage(stage, sums_->get());
  read_[buffer_of(stage)].record(sums_->get());
}

float* AdapterGradients::flat(std::size_t unit, std::size_t flat) const {
  const auto found = std::find_if(flats_.begin(), flats_.end(),
                                  [=](const TrainableFlat& known) { return known.unit == unit && known.flat == flat; });
  auto* buffer = whole_[buffer_of(found->stage)].as<float>();
  return buffer == nullptr ? nullptr : buffer + found->whole.begin;
}

void AdapterGradients::sum_stage(std::size_t stage, cudaStream_t stream) const {
  const TraceRange range("reduce");
  const GradientBuffer from = buffer(buffer_of(stage));
  std::vector<const TrainableFlat*> summed;
  std::vector<GradientFlat> offered;
  for (const TrainableFlat& flat : flats_) {
    if (!replicated() && flat.stage != stage) continue;
    summed.push_back(&flat);
    offered.push_back(flat.whole);
  }
  exchange_->offer(from, offered, stream);
  for (const TrainableFlat* flat : summed) {
    const RankArrays arrays = exchange_->gradients(from, flat->whole, stream);
    float* out = sum_.as<float>() + flat->shard_begin;
    if (replicated()) {
      sum_in_rank_order(arrays, flat->whole.shard_elements, out, stream);
    } else {
      add_sum_in_rank_order(arrays, flat->whole.shard_elements, out, stream);
    }
  }
  exchange_->release(from, stream);
}

void AdapterGradients::reduce() {
  if (sums_) {
    summed_.record(sums_->get());
    summed_.hold_back(compute_);
  } else if (world_size_ > 1) {
    sum_stage(0, compute_);
  }
}

const float* AdapterGradients::own() const {
  return world_size_ == 1 ? whole_[0].as<float>() : sum_.as<float>();
}

}  // namespace qshard::optimized
