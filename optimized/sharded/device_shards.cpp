#include "optimized/sharded/device_shards.h"

namespace qshard::optimized {

namespace {

std::int64_t aligned(std::int64_t bytes) {
  constexpr std::int64_t kAlignment = 256;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

ShardPlaces::ShardPlaces(const ShardLayout& layout) {
  for (const Unit& unit : layout.units) {
    std::vector<std::int64_t>& offsets = offsets_.emplace_back();
    for (const Flat& flat : unit.flats) {
      offsets.push_back(bytes_);
      if (!flat.trainable) bytes_ += aligned(flat.shard_bytes);
    }
  }
  trainable_begin_ = bytes_;
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      if (!layout.units[unit].flats[flat].trainable) continue;
      offsets_[unit][flat] = bytes_;
      bytes_ += layout.units[unit].flats[flat].shard_bytes;
    }
  }
}

std::size_t shard_count(const ShardLayout& layout) {
  return layout.sharding == ShardingStrategy::no_shard ? 1 : static_cast<std::size_t>(layout.world_size);
}

}  // namespace qshard::optimized
