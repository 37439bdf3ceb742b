#include "reference/sharded_unit.h"

#include <algorithm>

#include "reference/collectives.h"

namespace qshard::reference {
namespace {

// Calls body(part, offset in the part, offset in the parameter, length) for each piece of a slot that one shard holds.
template <typename Body>
void for_each_piece(const Flat& flat, const Slot& slot, const Body& body) {
  const std::int64_t end = slot.offset + slot.parameter.bytes();
  for (std::int64_t begin = slot.offset; begin < end;) {
    const std::int64_t part = begin / flat.shard_bytes;
    const std::int64_t stop = std::min(end, (part + 1) * flat.shard_bytes);
    body(static_cast<std::size_t>(part), begin - part * flat.shard_bytes, begin - slot.offset, stop - begin);
    begin = stop;
  }
}

}  // namespace

ShardedUnit::ShardedUnit(const Unit& layout, int world_size, ShardingStrategy sharding,
                         std::vector<MemoryLedger>& ranks)
    : layout_(layout),
      world_size_(static_cast<std::size_t>(world_size)),
      parts_(sharding == ShardingStrategy::no_shard ? 1 : world_size_),
      ranks_(&ranks) {
  for (const Flat& flat : layout_.flats) {
    const auto bytes = static_cast<std::size_t>(flat.shard_bytes);
    shards_.emplace_back(world_size_, std::vector<std::byte>(bytes));
    for (MemoryLedger& rank : ranks) rank.add(flat.shard_bytes);
  }
}

void ShardedUnit::store(std::size_t flat, const Slot& slot, std::span<const std::byte> bytes) {
  for_each_piece(layout_.flats[flat], slot, [&](std::size_t part, std::int64_t at, std::int64_t from, std::int64_t n) {
    const auto piece = bytes.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(n));
    for (std::size_t rank = 0; rank < world_size_; ++rank) {
      if (replicated() || rank == part) std::copy(piece.begin(), piece.end(), shards_[flat][rank].begin() + at);
    }
  });
}

std::vector<std::byte> ShardedUnit::load(std::size_t flat, const Slot& slot) const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(slot.parameter.bytes()));
  for_each_piece(layout_.flats[flat], slot, [&](std::size_t part, std::int64_t at, std::int64_t to, std::int64_t n) {
    const auto from = shards_[flat][part].begin() + at;
    std::copy(from, from + n, bytes.begin() + to);
  });
  return bytes;
}

void ShardedUnit::gather() {
  if (replicated() || !gathered_.empty()) return;
  for (std::size_t flat = 0; flat < layout_.flats.size(); ++flat) {
    const std::int64_t whole = layout_.flats[flat].shard_bytes * static_cast<std::int64_t>(parts_);
    RankBytes& buffers = gathered_.emplace_back(world_size_, std::vector<std::byte>(static_cast<std::size_t>(whole)));
    all_gather(RankBuffers<const std::byte>(shards_[flat].begin(), shards_[flat].end()),
               RankBuffers<std::byte>(buffers.begin(), buffers.end()));
    for (MemoryLedger& rank : *ranks_) rank.add(whole);
  }
}

void ShardedUnit::release() {
  for (const RankBytes& buffers : gathered_) {
    for (MemoryLedger& rank : *ranks_) rank.release(static_cast<std::int64_t>(buffers.front().size()));
  }
  gathered_.clear();
}

GatheredFlats ShardedUnit::gathered(std::size_t rank) const {
  const std::vector<RankBytes>& source = replicated() ? shards_ : gathered_;
  GatheredFlats flats;
  for (const RankBytes& flat : source) flats.emplace_back(flat[rank]);
  return flats;
}

}  // namespace qshard::reference
