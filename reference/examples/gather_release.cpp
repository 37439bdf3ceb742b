// Two ranks hold half of a weight each. Gather puts it together on both, release frees it: no bit changes.
#include <fmt/core.h>

#include "core/sharding/shard_layout.h"
#include "reference/sharded_unit.h"

int main() {
  using namespace qshard;
  constexpr int kRanks = 2;
  // 37 packed bytes of one layer: they do not divide by two evenly, so the last shard is padded.
  const std::vector<ModelStage> stages = {{"layer", {{"layer.weight", ParameterKind::codes, DType::u8, {37, 1}}}}};
  const ShardLayout layout = plan_shards(stages, kRanks, ShardingStrategy::full_shard);
  const Flat& flat = layout.units[0].flats[0];
  fmt::print("unit '{}': {} bytes, cut into {} shards of {}\n", layout.units[0].name, flat.bytes, kRanks,
             flat.shard_bytes);

  std::vector<reference::MemoryLedger> ranks(kRanks);
  reference::ShardedUnit unit(layout.units[0], layout.shards, reference::make_process_group(kRanks, nullptr), ranks);
  std::vector<std::byte> weight(37);
  for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<std::byte>(0x10 + i);
  unit.store(0, flat.slots[0], weight);

  const auto show = [](const char* what, std::size_t rank, std::span<const std::byte> bytes) {
    fmt::print("  {} rank {}:", what, rank);
    for (const std::byte byte : bytes) fmt::print(" {:02x}", std::to_integer<int>(byte));
    fmt::print("\n");
  };
  fmt::print("at rest\n");
  for (std::size_t rank = 0; rank < kRanks; ++rank) show("shard of", rank, unit.shard(0, rank));
  unit.gather();
  fmt::print("gathered\n");
  for (std::size_t rank = 0; rank < kRanks; ++rank) show("whole on", rank, unit.gathered(rank)[0].first(weight.size()));
  unit.release();
  fmt::print("released: each rank holds its shard of {} bytes again\n", unit.shard(0, 0).size());
  std::vector<std::byte> loaded = unit.load(0);
  loaded.resize(weight.size());  // without the padding
  const bool is_same = loaded == weight;
  fmt::print("put together from the shards, the weight is {}\n", is_same ? "the same to the bit" : "another one");
}
