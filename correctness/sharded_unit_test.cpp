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
  const ShardLayout layout = plan_shards(stages, world_size, sharding);
  std::vector<MemoryLedger> ranks(static_cast<std::size_t>(world_size));
  ShardedUnit unit(layout.units[0], sharding, make_process_group(world_size, nullptr), ranks);
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

TEST(ShardedUnit, CountsWhatItHoldsAndFreesWhatItGathered) {
  const Unit layout = make_unit(DType::u8, {1000, 24}, 3);
  std::vector<MemoryLedger> ranks(3);
  ShardedUnit unit(layout, ShardingStrategy::full_shard, make_process_group(3, nullptr), ranks);
  const std::int64_t resident = layout.flats[0].shard_bytes;
  for (const MemoryLedger& rank : ranks) EXPECT_EQ(rank.held(), resident);
  unit.gather();
  for (const MemoryLedger& rank : ranks) EXPECT_EQ(rank.held(), resident + 3 * resident);
  unit.release();
  for (const MemoryLedger& rank : ranks) EXPECT_EQ(rank.held(), resident);
}

}  // namespace
}  // namespace qshard::reference
