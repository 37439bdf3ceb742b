// How often the flats of a layer are gathered, and what of the own shard, by an exchange that counts.
#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "core/formats/hf_config.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/sharded/model_plan.h"
#include "optimized/sharded/unit_gatherer.h"

namespace qshard::test {
namespace {

constexpr std::int64_t kLayers = 5;

class CountingExchange : public optimized::Exchange {
 public:
  int frozen_flats = 0;
  int trainable_flats = 0;
  std::size_t shard = 0;                    // the own one
  std::vector<optimized::Gathering> flats;  // that were gathered

  void gather(std::span<const optimized::Gathering> gathered, cudaStream_t) override {
    for (const optimized::Gathering& flat : gathered) {
      ++(flat.range == optimized::ShardRange::frozen ? frozen_flats : trainable_flats);
      flats.push_back(flat);
    }
  }
  [[nodiscard]] std::size_t own_shard() const override { return shard; }

  void deliver(std::span<const optimized::Delivery>, const std::byte*, cudaStream_t) override {}
  void finish_loading(cudaStream_t) override {}
  [[nodiscard]] const std::byte* frozen(std::size_t) const override { return nullptr; }
  void publish(cudaStream_t) override {}
  void offer(const optimized::GradientBuffer&, std::span<const optimized::GradientFlat>, cudaStream_t) override {}
  optimized::RankArrays gradients(const optimized::GradientBuffer&, const optimized::GradientFlat&,
                                  cudaStream_t) override {
    return {};
  }
  void release(const optimized::GradientBuffer&, cudaStream_t) override {}
  void await_release(const optimized::GradientBuffer&, cudaStream_t) override {}
  [[nodiscard]] const char* name() const override { return "counting"; }
};

/// In layers: all of a layer's flats count as one.
struct Counts {
  double frozen = 0;
  double trainable = 0;
  bool operator==(const Counts&) const = default;
};

void PrintTo(const Counts& counts, std::ostream* out) {
  *out << "frozen flats of " << counts.frozen << " and trainable ones of " << counts.trainable << " layers";
}

Counts flats_of_a_layer(const ShardLayout& layout) {
  Counts counts;
  for (const Unit& unit : layout.units) {
    if (unit.stage != stage_of_layer(1)) continue;
    for (const Flat& flat : unit.flats) ++(flat.trainable ? counts.trainable : counts.frozen);
  }
  return counts;
}

/// The layers as a step takes them.
void pass_over_layers(optimized::UnitGatherer& gatherer) {
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    gatherer.acquire(stage_of_layer(layer));
    if (layer + 1 < kLayers) gatherer.prefetch(stage_of_layer(layer + 1));
    gatherer.release(stage_of_layer(layer));
  }
  for (std::int64_t layer = kLayers - 1; layer >= 0; --layer) {
    gatherer.acquire(stage_of_layer(layer));
    if (layer > 0) gatherer.prefetch(stage_of_layer(layer - 1));
    gatherer.release(stage_of_layer(layer));
  }
}

optimized::ModelPlan plan_of(ShardingStrategy sharding, int ranks) {
  EngineOptions options;
  options.sharding = sharding;
  options.dtype = options.compute_dtype = DType::bf16;
  options.lora.r = 8;
  ModelConfig config =
      read_hf_config(std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / "qwen3" / "base" / "config.json");
  config.num_hidden_layers = kLayers;
  return make_model_plan(config, *optimized::make_random_source(0.02, 1), options, {{96, 4, 48}, {96, 4, 48}}, ranks);
}

/// What each of three steps gathers; adapters change after each.
std::vector<Counts> counts_of_steps(ShardingStrategy sharding) {
  const optimized::ModelPlan plan = plan_of(sharding, 2);
  const optimized::ShardPlaces places(plan.layout, plan.infos.size());
  const DeviceBuffer memory(std::size_t{64} << 20);
  optimized::Arena arena(memory.as<std::byte>(), static_cast<std::int64_t>(memory.bytes()));
  const optimized::ShardMemory shards(places, false, arena);
  const optimized::Stream compute;
  CountingExchange exchange;
  optimized::UnitGatherer gatherer(plan.layout, places, shards, &exchange, compute.get(), arena);
  const Counts of_layer = flats_of_a_layer(plan.layout);
  std::vector<Counts> counts;
  for (int step = 0; step < 3; ++step) {
    exchange.frozen_flats = exchange.trainable_flats = 0;
    pass_over_layers(gatherer);
    counts.push_back({exchange.frozen_flats / of_layer.frozen, exchange.trainable_flats / of_layer.trainable});
    gatherer.invalidate();
  }
  return counts;
}

class UnitGathererGpu : public GpuTest {};

// Five layers forward, and all but the last two of them backward, which still lie in the two buffers. The next steps
// find the frozen flats of the first two layers there.
TEST_F(UnitGathererGpu, FullShardGathersNothingTwiceThatIsStillThere) {
  const std::vector<Counts> counts = counts_of_steps(ShardingStrategy::full_shard);
  EXPECT_EQ(counts, (std::vector<Counts>{{8, 8}, {6, 8}, {6, 8}}));
}

TEST_F(UnitGathererGpu, ShardGradOpGathersFrozenFlatsOnce) {
  const std::vector<Counts> counts = counts_of_steps(ShardingStrategy::shard_grad_op);
  EXPECT_EQ(counts, (std::vector<Counts>{{5, 5}, {0, 5}, {0, 5}}));
}

/// Whether the bytes of `slot` that lie in the own shard are gathered.
bool gathers_own_part(const optimized::Gathering& flat, std::int64_t own_begin, const Slot& slot) {
  const std::int64_t begin = std::max<std::int64_t>(slot.offset - own_begin, 0);
  const std::int64_t end = std::min(slot.offset + slot.parameter.bytes() - own_begin, flat.shard_bytes);
  return begin >= end || end <= flat.in_place.begin || begin >= flat.in_place.end;
}

// A parameter that is wholly in the own shard is read there; what is gathered holds the own part of all others.
TEST_F(UnitGathererGpu, WholeParametersOfTheOwnShardAreReadInPlace) {
  for (const int ranks : {2, 3}) {
    const optimized::ModelPlan plan = plan_of(ShardingStrategy::full_shard, ranks);
    const optimized::ShardPlaces places(plan.layout, plan.infos.size());
    int in_place = 0;
    int elsewhere = 0;
    for (int shard = 0; shard < ranks; ++shard) {
      const DeviceBuffer memory(std::size_t{64} << 20);
      optimized::Arena arena(memory.as<std::byte>(), static_cast<std::int64_t>(memory.bytes()));
      const optimized::ShardMemory shards(places, false, arena);
      const optimized::Stream compute;
      CountingExchange exchange;
      exchange.shard = static_cast<std::size_t>(shard);
      optimized::UnitGatherer gatherer(plan.layout, places, shards, &exchange, compute.get(), arena);
      gatherer.acquire(stage_of_layer(1));
      auto gathered = exchange.flats.begin();
      for (std::size_t unit = 0; unit < plan.layout.units.size(); ++unit) {
        if (plan.layout.units[unit].stage != stage_of_layer(1)) continue;
        for (std::size_t index = 0; index < plan.layout.units[unit].flats.size(); ++index, ++gathered) {
          const Flat& flat = plan.layout.units[unit].flats[index];
          const std::byte* const own = shards.at(optimized::range_of(flat)) + places.offset(unit, index);
          for (const Slot& slot : flat.slots) {
            SCOPED_TRACE(fmt::format("shard {} of {}: {}", shard, ranks, slot.parameter.name));
            const std::byte* const at = gatherer.parameter(unit, index, slot);
            const std::int64_t own_begin = shard * flat.shard_bytes;
            if (at == gathered->gathered + slot.offset) {
              EXPECT_TRUE(gathers_own_part(*gathered, own_begin, slot));
              ++elsewhere;
            } else {
              EXPECT_EQ(at, own + slot.offset - own_begin);
              EXPECT_GE(slot.offset, own_begin);
              EXPECT_LE(slot.offset + slot.parameter.bytes(), own_begin + flat.shard_bytes);
              ++in_place;
            }
          }
        }
      }
      EXPECT_EQ(gathered, exchange.flats.end());
    }
    EXPECT_GT(in_place, 5) << ranks << " ranks";
    EXPECT_GT(elsewhere, 5) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace qshard::test
