#include "optimized/sharded/unit_gatherer.h"

#include <algorithm>
#include <span>

#include "core/base/trace_range.h"

namespace qshard::optimized {

namespace {

std::int64_t whole_bytes(const ShardLayout& layout, const Flat& flat) {
  return flat.shard_bytes * layout.shards;
}

}  // namespace

UnitGatherer::UnitGatherer(const ShardLayout& layout, const ShardPlaces& places, const ShardMemory& memory,
                           Exchange* exchange, cudaStream_t compute, Arena& arena)
    : layout_(&layout),
      places_(&places),
      memory_(&memory),
      exchange_(exchange),
      compute_(compute),
      arena_(&arena),
      stages_(layout.units.back().stage + 1),
      stage_bytes_(stages_, 0) {
  for (const Unit& unit : layout.units) {
    in_stage_.push_back(stage_bytes_[unit.stage]);
    in_place_.emplace_back(unit.flats.size());
    for (const Flat& flat : unit.flats) stage_bytes_[unit.stage] += whole_bytes(layout, flat);
  }
  if (replicated()) return;
  if (!arena.dry_run()) copy_.emplace();
  // Stage 0 is the embedding, whose rows are read where they lie; the last one is the head.
  const auto layers = std::span(stage_bytes_).subspan(1, stages_ - 2);
  if (layers.empty()) return;
  const std::int64_t largest = *std::max_element(layers.begin(), layers.end());
  const bool keeps_all = layout.sharding == ShardingStrategy::shard_grad_op;
  buffers_.resize(keeps_all ? layers.size() : std::min<std::size_t>(2, layers.size()));
  for (Buffer& buffer : buffers_) buffer.memory = arena.take(largest, "gathered units");
  if (!copy_) return;
  own_shard_ = static_cast<std::int64_t>(exchange->own_shard());
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    const Unit& of = layout.units[unit];
    if (is_end(of.stage)) continue;
    std::ranges::transform(of.flats, in_place_[unit].begin(), [this](const Flat& flat) { return in_own_shard(flat); });
  }
}

// The slots that lie wholly in the own shard follow each other. Cut between elements, a shard may begin where no slot
// could: then none is read there.
ByteRange UnitGatherer::in_own_shard(const Flat& flat) const {
  const std::int64_t begin = own_begin(flat);
  if (memory_->piece(range_of(flat)).empty() || begin % kSlotAlignment != 0) return {};
  ByteRange range;
  for (const Slot& slot : flat.slots) {
    const std::int64_t end = slot.offset + slot.parameter.bytes();
    if (slot.offset < begin || end > begin + flat.shard_bytes) continue;
    if (range.begin == range.end) range.begin = slot.offset - begin;
    range.end = end - begin;
  }
  return range;
}

UnitGatherer::Buffer* UnitGatherer::holder_of(std::size_t stage) {
  for (Buffer& end : ends_) {
    if (end.stage == stage) return &end;
  }
  const auto found =
      std::find_if(buffers_.begin(), buffers_.end(), [stage](const Buffer& buffer) { return buffer.stage == stage; });
  return found == buffers_.end() ? nullptr : &*found;
}

// The buffer that nobody reads and whose stage was used longest ago; null where all are being read.
UnitGatherer::Buffer* UnitGatherer::free_buffer() {
  Buffer* oldest = nullptr;
  for (Buffer& buffer : buffers_) {
    if (!buffer.in_use && (oldest == nullptr || buffer.used_at < oldest->used_at)) oldest = &buffer;
  }
  return oldest;
}

void UnitGatherer::fill(Buffer& buffer, std::size_t stage) {
  buffer.stage = stage;
  buffer.used_at = ++clock_;
  gather(buffer, false);
}

void UnitGatherer::gather(Buffer& buffer, bool trainable_alone) {
  buffer.outdated = false;
  if (!copy_) return;
  const TraceRange range("gather");
  buffer.freed.hold_back(copy_->get());
  auto* to = buffer.memory.as<std::byte>();
  std::vector<Gathering> flats;
  for (std::size_t unit = 0; unit < layout_->units.size(); ++unit) {
    const Unit& of = layout_->units[unit];
    if (of.stage != buffer.stage) continue;
    for (std::size_t flat = 0; flat < of.flats.size(); ++flat) {
      if (of.flats[flat].trainable || !trainable_alone) {
        flats.push_back({range_of(of.flats[flat]), places_->offset(unit, flat), of.flats[flat].shard_bytes, to,
                         in_place_[unit][flat]});
      }
      to += whole_bytes(*layout_, of.flats[flat]);
    }
  }
  if (!flats.empty()) exchange_->gather(flats, copy_->get());
  buffer.ready.record(copy_->get());
}

// The memory may just have been something else's: the copy waits for what was enqueued before.
void UnitGatherer::gather_at_end(std::size_t stage) {
  Buffer& buffer = ends_[stage == 0 ? 0 : 1];
  buffer.memory = arena_->take(stage_bytes_[stage], "gathered head");
  if (copy_) buffer.freed.record(compute_);
  fill(buffer, stage);
}

void UnitGatherer::prefetch(std::size_t stage) {
  if (replicated()) return;
  if (Buffer* holder = holder_of(stage)) {
    if (holder->outdated) gather(*holder, true);
  } else if (is_end(stage)) {
    gather_at_end(stage);
  } else if (Buffer* buffer = free_buffer()) {
    fill(*buffer, stage);
  }
}

void UnitGatherer::acquire(std::size_t stage) {
  if (replicated()) return;
  prefetch(stage);
  Buffer& buffer = *holder_of(stage);
  buffer.in_use = true;
  buffer.used_at = ++clock_;
  if (copy_) buffer.ready.hold_back(compute_);
}

void UnitGatherer::release(std::size_t stage) {
  if (replicated()) return;
  Buffer& buffer = *holder_of(stage);
  buffer.in_use = false;
  if (copy_) buffer.freed.record(compute_);
  if (is_end(stage)) {
    buffer.stage = kNone;
    buffer.memory = {};
  }
}

void UnitGatherer::invalidate() {
  for (Buffer& buffer : buffers_) buffer.outdated = buffer.stage != kNone;
}

const std::byte* UnitGatherer::flat(std::size_t unit, std::size_t flat) const {
  if (arena_->dry_run()) return nullptr;
  const std::vector<Flat>& flats = layout_->units[unit].flats;
  if (replicated()) return memory_->at(range_of(flats[flat])) + places_->offset(unit, flat);
  const std::size_t stage = layout_->units[unit].stage;
  const auto* buffer = const_cast<UnitGatherer*>(this)->holder_of(stage);
  const std::byte* at = buffer->memory.as<std::byte>() + in_stage_[unit];
  for (std::size_t before = 0; before < flat; ++before) at += whole_bytes(*layout_, flats[before]);
  return at;
}

const std::byte* UnitGatherer::parameter(std::size_t unit, std::size_t flat, const Slot& slot) const {
  if (arena_->dry_run()) return nullptr;
  const Flat& of = layout_->units[unit].flats[flat];
  const ByteRange in_place = in_place_[unit][flat];
  const std::int64_t at = slot.offset - own_begin(of);
  if (at >= in_place.begin && at < in_place.end) return memory_->at(range_of(of)) + places_->offset(unit, flat) + at;
  return this->flat(unit, flat) + slot.offset;
}

}  // namespace qshard::optimized
