#include "optimized/sharded/device_shards.h"

namespace qshard::optimized {

namespace {

std::int64_t aligned(std::int64_t bytes) {
  constexpr std::int64_t kAlignment = 256;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

ShardPlaces::ShardPlaces(const ShardLayout& layout, std::size_t weights4bit) {
  std::int64_t& frozen = bytes_[static_cast<std::size_t>(ShardRange::frozen)];
  std::int64_t& trainable = bytes_[static_cast<std::size_t>(ShardRange::trainable)];
  for (const Unit& unit : layout.units) {
    std::vector<std::int64_t>& offsets = offsets_.emplace_back();
    for (const Flat& flat : unit.flats) {
      std::int64_t& end = flat.trainable ? trainable : frozen;
      offsets.push_back(end);
      end += flat.trainable ? flat.shard_bytes : aligned(flat.shard_bytes);
    }
  }
  bytes_[static_cast<std::size_t>(ShardRange::constants)] =
      static_cast<std::int64_t>(weights4bit) * kNestedConstants * 4;
}

ShardMemory::ShardMemory(const ShardPlaces& places, bool offload, Arena& arena) {
  if (!offload) frozen = arena.take(places.bytes(ShardRange::frozen), "weight shards");
  trainable = arena.take(places.bytes(ShardRange::trainable), "weight shards");
  constants = arena.take(places.bytes(ShardRange::constants), "weight shards");
}

const Arena::Piece& ShardMemory::piece(ShardRange range) const {
  if (range == ShardRange::constants) return constants;
  return range == ShardRange::trainable ? trainable : frozen;
}

}  // namespace qshard::optimized
