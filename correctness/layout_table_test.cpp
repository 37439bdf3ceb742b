#include "core/sharding/layout_table.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "core/run/engine_options.h"

namespace qshard {
namespace {

using testing::HasSubstr;

std::vector<ModelStage> stages_of(const ModelConfig& config, DType storage) {
  EngineOptions options;
  options.quantization.quant_storage = storage;
  const auto none = [](const std::string&, const Shape&) { return std::nullopt; };
  return list_model_stages(config, options.quantization, options.lora, DType::bf16, none);
}

ModelConfig small_model() {
  ModelConfig config;
  config.vocab_size = 96;
  config.hidden_size = 64;
  config.intermediate_size = 176;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  return config;
}

std::vector<LayoutCost> costs_of(const ModelConfig& model, int ranks) {
  StepWork work;
  work.model = model;
  work.ranks = ranks;
  work.batch = {2048, 1, 2048};
  return list_layout_costs([&](DType storage) { return stages_of(model, storage); }, DType::bf16, work,
                           device_numbers("h100", ""));
}

const LayoutCost& find(const std::vector<LayoutCost>& costs, DType storage, WrapPolicy wrap, bool scales_sharded,
                       ShardingStrategy sharding = ShardingStrategy::full_shard) {
  return *std::ranges::find_if(costs, [&](const LayoutCost& cost) {
    const LayoutVariant& variant = cost.variant;
    return variant.storage == storage && variant.wrap == wrap && variant.scales_sharded == scales_sharded &&
           variant.sharding == sharding;
  });
}

std::vector<std::uint8_t> random_bytes(std::int64_t count, std::mt19937& chance) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(chance());
  return bytes;
}

// Cuts every parameter into the ranks' shards, puts the shards one after the other, and reads the parameter again.
TEST(LayoutTable, EveryVariantGathersTheSameBitsThatItSharded) {
  std::mt19937 chance(std::random_device{}());
  for (const int ranks : {1, 2, 3}) {
    for (const LayoutVariant& variant : list_layout_variants(DType::bf16)) {
      const auto stages = stages_of(small_model(), variant.storage);
      const ShardLayout layout = plan_variant(stages, ranks, variant);
      const auto parts = static_cast<std::size_t>(variant.sharding == ShardingStrategy::no_shard ? 1 : ranks);
      std::set<std::string> seen;
      for (const Unit& unit : layout.units) {
        for (const Flat& flat : unit.flats) {
          std::vector<std::vector<std::uint8_t>> shards(parts, random_bytes(flat.shard_bytes, chance));
          std::map<std::string, std::vector<std::uint8_t>> parameters;
          for (const Slot& slot : flat.slots) {
            const auto& bytes = parameters[slot.parameter.name] = random_bytes(slot.parameter.bytes(), chance);
            for (const ShardPiece& piece : cut_into_pieces(slot.offset, slot.parameter.bytes(), flat.shard_bytes)) {
              std::memcpy(shards.at(piece.shard).data() + piece.in_shard, bytes.data() + piece.in_parameter,
                          static_cast<std::size_t>(piece.size));
            }
          }
          std::vector<std::uint8_t> gathered;
          for (const auto& shard : shards) gathered.insert(gathered.end(), shard.begin(), shard.end());
          for (const Slot& slot : flat.slots) {
            const auto& bytes = parameters[slot.parameter.name];
            EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), gathered.begin() + slot.offset)) << slot.parameter.name;
            EXPECT_TRUE(seen.insert(slot.parameter.name).second) << slot.parameter.name << " is in two units";
          }
        }
      }
      std::size_t expected = 0;
      for (const ModelStage& stage : stages) {
        for (const Parameter& parameter : stage.parameters) {
          expected += variant.scales_sharded || parameter.kind != ParameterKind::statistics ? 1 : 0;
        }
      }
      EXPECT_EQ(seen.size(), expected);
    }
  }
}

// Llama-2-70B, all seven linear layers of 80 decoder layers, double quantization: 68,451,041,280 weights.
TEST(LayoutTable, TellsWhatTheDtypeRuleAndReplicatedScalesCostAt70B) {
  const auto costs = costs_of(bench::model_shape("llama-2-70b", 0), 2);
  const LayoutCost& best = find(costs, DType::bf16, WrapPolicy::layer, true);
  // Three messages a decoder layer (frozen, statistics, LoRA); the embedding and the head have one each.
  EXPECT_EQ(best.messages, 80 * 3 + 2);
  EXPECT_EQ(best.passes, 2);
  const LayoutCost& other_dtype = find(costs, DType::u8, WrapPolicy::layer, true);
  // Norms and LoRA of a layer stay together; each of seven linear layers has its codes and its statistics.
  EXPECT_EQ(other_dtype.messages, 80 * (2 + 7 * 2) + 2);
  EXPECT_GT(other_dtype.step_seconds, best.step_seconds);
  EXPECT_EQ(best.largest, 2 * (32000 * 8192 + 8192));  // the output head with its norm
  const std::int64_t ends = 2 * 32000 * 8192 + best.largest;
  const double layer = static_cast<double>(best.gathered - ends) / 80;
  const DeviceNumbers numbers = device_numbers("h100", "");
  EXPECT_NEAR(best.layer_gather_seconds,
              layer / 2 / numbers.peer_rate + layer / numbers.memory_rate + 3 * numbers.message_time, 1e-9);
  const LayoutCost& replicated = find(costs, DType::bf16, WrapPolicy::layer, false);
  const std::int64_t statistics = 68451041280 / 64 + 4 * (68451041280 / 16384);
  EXPECT_NEAR(static_cast<double>(replicated.replicated), static_cast<double>(statistics), 80 * 7 * 4);
  EXPECT_NEAR(static_cast<double>(replicated.held - best.held), static_cast<double>(statistics) / 2, 1e6);
  EXPECT_EQ(replicated.messages, 80 * 2 + 2);
  const LayoutCost& apart = find(costs, DType::bf16, WrapPolicy::adapters_apart, true);
  EXPECT_EQ(apart.messages, 80 * (2 + 14) + 2);
}

TEST(LayoutTable, NamesTheVariantsThatMoveTheSame) {
  const auto costs = costs_of(small_model(), 2);
  const auto place = [&](const LayoutCost& cost) { return static_cast<std::size_t>(&cost - costs.data()); };
  ASSERT_EQ(costs.size(), 4U * 3 * 2 * 3);
  for (const LayoutCost& cost : costs) {
    EXPECT_LE(cost.same_as, place(cost));
    EXPECT_EQ(costs[cost.same_as].same_as, cost.same_as);
  }
  // Another dtype is cut as if each linear layer had been asked for; which other dtype, does not matter.
  const LayoutCost& cut = find(costs, DType::f16, WrapPolicy::layer, true);
  EXPECT_EQ(find(costs, DType::u8, WrapPolicy::layer, true).same_as, cut.same_as);
  EXPECT_EQ(find(costs, DType::f32, WrapPolicy::linear, true).same_as, cut.same_as);
  EXPECT_NE(cut.same_as, find(costs, DType::bf16, WrapPolicy::layer, true).same_as);
  // It sends as many messages as the layer with each adapter matrix apart, but others.
  const LayoutCost& apart = find(costs, DType::bf16, WrapPolicy::adapters_apart, true);
  EXPECT_EQ(cut.messages, apart.messages);
  EXPECT_NE(cut.same_as, apart.same_as);
  // Nothing is gathered under NO_SHARD.
  for (const LayoutCost& cost : costs) {
    if (cost.variant.sharding != ShardingStrategy::no_shard) continue;
    EXPECT_EQ(cost.gathered + cost.messages + cost.passes + cost.largest, 0);
    EXPECT_EQ(cost.layer_gather_seconds, 0);
  }
}

TEST(LayoutTable, IsATableForPeople) {
  const std::string text = describe(costs_of(bench::model_shape("llama-2-70b", 0), 2));
  EXPECT_THAT(text, HasSubstr("codes held in float16 instead of bfloat16: 1282 messages a pass instead of 242"));
  EXPECT_THAT(text, HasSubstr("scales on every rank: +0.51 GiB a rank"));
  EXPECT_THAT(text, HasSubstr("the same: float32, uint8 by layer; bfloat16, float16, float32, uint8 by linear\n"));
  EXPECT_THAT(describe(costs_of(bench::model_shape("llama-2-70b", 0), 1)),
              HasSubstr("; bfloat16, float16, float32, uint8 by linear, NO_SHARD; "));
}

}  // namespace
}  // namespace qshard
