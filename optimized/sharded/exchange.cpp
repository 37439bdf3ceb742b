#include "optimized/sharded/exchange.h"

#include <algorithm>

#include "optimized/sharded/pulled_exchange.h"

namespace qshard::optimized {

namespace {

std::int64_t elements_of(const Flat& flat) {
  return flat.shard_bytes / static_cast<std::int64_t>(size_of(flat.dtype));
}

}  // namespace

GradientRoom gradient_room(const ShardLayout& layout) {
  std::vector<std::int64_t> of_stage(layout.units.back().stage + 1, 0);
  std::int64_t all = 0;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      if (!flat.trainable) continue;
      of_stage[unit.stage] += elements_of(flat) * layout.shards;
      all += elements_of(flat) * layout.shards;
    }
  }
  // Sharded: two stages, one being summed while the next one's are made. Replicated: everything is accumulated.
  if (layout.shards == 1) return {1, all};
  return {2, *std::max_element(of_stage.begin(), of_stage.end())};
}

std::int64_t exchange_bytes(const ShardLayout& layout, Transport transport) {
  if (layout.world_size == 1) return 0;
  if (transport == Transport::peer) return StreamSignals::bytes(kGradientChannels);
  if (transport != Transport::nccl) return 0;
  std::int64_t most = 0;  // a shard of a flat's gradients from each rank
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      if (flat.trainable) most = std::max(most, elements_of(flat) * 4 * layout.world_size);
    }
  }
  return most;
}

}  // namespace qshard::optimized
