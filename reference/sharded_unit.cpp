#include "reference/sharded_unit.h"

#include <algorithm>

#include "reference/collectives.h"

namespace qshard::reference {

ShardedUnit::ShardedUnit(const Unit& layout, int shards, const ProcessGroup& group, std::vector<MemoryLedger>& ranks)
    : layout_(layout), group_(group), parts_(static_cast<std::size_t>(shards)), ranks_(&ranks) {
  for (const Flat& flat : layout_.flats) {
    const auto bytes = static_cast<std::size_t>(flat.shard_bytes);
    shards_.emplace_back(group_.local_ranks, std::vector<std::byte>(bytes));
    for (MemoryLedger& rank : ranks) rank.add(flat.shard_bytes);
  }
}

void ShardedUnit::store(std::size_t flat, const Slot& slot, std::span<const std::byte> bytes) {
  const std::int64_t shard_bytes = layout_.flats[flat].shard_bytes;
  for (const ShardPiece& piece : cut_into_pieces(slot.offset, slot.parameter.bytes(), shard_bytes)) {
    for (std::size_t rank = 0; rank < group_.local_ranks; ++rank) {
      if ((group_.first_rank() + rank) % parts_ != piece.shard) continue;
      std::copy_n(bytes.begin() + piece.in_parameter, piece.size, shards_[flat][rank].begin() + piece.in_shard);
    }
  }
}

std::vector<std::byte> ShardedUnit::load(std::size_t flat) const {
  if (replicated()) return shards_[flat].front();
  std::vector<std::byte> whole(static_cast<std::size_t>(layout_.flats[flat].shard_bytes) * parts_);
  all_gather(group_, RankBuffers<const std::byte>(shards_[flat].begin(), shards_[flat].end()), {std::span(whole)});
  return whole;
}

void ShardedUnit::gather() {
  if (replicated() || !gathered_.empty()) return;
  for (std::size_t flat = 0; flat < layout_.flats.size(); ++flat) {
    const std::int64_t whole = layout_.flats[flat].shard_bytes * static_cast<std::int64_t>(parts_);
    RankBytes& buffers =
        gathered_.emplace_back(group_.local_ranks, std::vector<std::byte>(static_cast<std::size_t>(whole)));
    all_gather(group_, RankBuffers<const std::byte>(shards_[flat].begin(), shards_[flat].end()),
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
