#include "reference/sharded_unit.h"

#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "core/sharding/sharding_strategy.h"
#include "core/tensor/float16.h"

namespace qshard {

// In the names of the tests.
void PrintTo(DType dtype, std::ostream* out) {
  *out << torch_name(dtype);
}
void PrintTo(ShardingStrategy strategy, std::ostream* out) {
  *out << to_string(strategy);
}

}  // namespace qshard

namespace qshard::reference {
namespace {

Unit make_unit(DType storage, const std::vector<std::int64_t>& sizes, int world_size) {
  std::vector<ModelStage> stages(1);
  stages[0].name = "unit";
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    stages[0].parameters.push_back({"weight" + std::to_string(i), ParameterKind::codes, storage, {sizes[i], 1}});
  }
  return plan_shards(stages, world_size, ShardingStrategy::full_shard).units[0];
}

// All 65,536 16-bit patterns, NaNs of every kind among them, and the same bytes seen as other dtypes.
std::vector<std::byte> all_patterns() {
  std::vector<std::byte> bytes(2 * 65536);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    std::memcpy(bytes.data() + 2 * i, &bits, 2);
  }
  return bytes;
}

class ShardedUnitTest : public testing::TestWithParam<std::tuple<DType, int, ShardingStrategy>> {};

TEST_P(ShardedUnitTest, EveryBitSurvivesShardGatherAndLoad) {
  const auto [storage, world_size, sharding] = GetParam();
  const auto itemsize = static_cast<std::int64_t>(size_of(storage));
  const std::vector<std::byte> bytes = all_patterns();
  std::vector<ModelStage> stages(1);
  const auto whole = static_cast<std::int64_t>(bytes.size()) / itemsize;
  stages[0] = {"unit",
               {{"first", ParameterKind::codes, storage, {5, 1}},
                {"patterns", ParameterKind::codes, storage, {whole, 1}},
                {"last", ParameterKind::codes, storage, {3, 1}}}};
  const ShardLayout layout = plan_shards(stages, world_size, sharding, world_size / 2);
  std::vector<MemoryLedger> ranks(static_cast<std::size_t>(world_size));
  ShardedUnit unit(layout.units[0], layout.shards, make_process_group(world_size, nullptr), ranks);
  const Slot& slot = layout.units[0].flats[0].slots[1];
  unit.store(0, slot, bytes);
  const std::vector<std::byte> gathered = unit.load(0);
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), gathered.begin() + slot.offset));
  unit.gather();
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto seen = unit.gathered(rank)[0].subspan(static_cast<std::size_t>(slot.offset), bytes.size());
    EXPECT_TRUE(std::equal(seen.begin(), seen.end(), bytes.begin())) << "rank " << rank;
  }
  unit.release();
}

INSTANTIATE_TEST_SUITE_P(StoragesWorldsStrategies, ShardedUnitTest,
                         testing::Combine(testing::Values(DType::u8, DType::bf16, DType::f16, DType::f32),
                                          testing::Values(1, 2, 3, 7),
                                          testing::Values(ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op,
                                                          ShardingStrategy::no_shard)));

INSTANTIATE_TEST_SUITE_P(TwoGroups, ShardedUnitTest,
                         testing::Combine(testing::Values(DType::u8, DType::f32), testing::Values(2, 4, 6),
                                          testing::Values(ShardingStrategy::hybrid_shard)));

TEST(ShardedUnit, CountsWhatItHoldsAndFreesWhatItGathered) {
  constexpr int kWorldSize = 3;
  const Unit layout = make_unit(DType::u8, {1000, 24}, kWorldSize);
  std::vector<MemoryLedger> ranks(kWorldSize);
  ShardedUnit unit(layout, kWorldSize, make_process_group(kWorldSize, nullptr), ranks);
  const auto expect_held = [&](std::int64_t bytes) {
    for (const MemoryLedger& rank : ranks) EXPECT_EQ(rank.held(), bytes);
  };
  // 1000 bytes, the next slot at 1008, 24 more: 1032 in three shards of 344, rounded up to 352.
  expect_held(352);
  unit.gather();
  expect_held(352 + 3 * 352);
  unit.gather();  // is gathered already
  expect_held(352 + 3 * 352);
  unit.release();
  expect_held(352);
  EXPECT_TRUE(unit.gathered(0).empty());
  for (const MemoryLedger& rank : ranks) EXPECT_EQ(rank.peak(), 352 + 3 * 352);
}

TEST(ShardedUnit, AReplicatedUnitGathersAndFreesNothing) {
  const Unit layout = make_unit(DType::u8, {1000, 24}, 1);
  std::vector<MemoryLedger> ranks(2);
  ShardedUnit unit(layout, 1, make_process_group(2, nullptr), ranks);
  unit.gather();
  EXPECT_EQ(ranks[1].held(), layout.flats[0].shard_bytes);
  unit.release();
  EXPECT_EQ(ranks[1].held(), layout.flats[0].shard_bytes);
  EXPECT_EQ(unit.gathered(1).size(), 1U);
}

}  // namespace
}  // namespace qshard::reference
