#include "core/sharding/shard_layout.h"

#include <algorithm>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "core/run/engine_options.h"
#include "core/sharding/sharding_strategy.h"
#include "correctness/expect_error.h"

namespace qshard {
namespace {

using testing::HasSubstr;

EngineOptions options(DType storage, int world_size) {
  EngineOptions options;
  options.world_size = world_size;
  options.dtype = DType::bf16;
  options.quantization.quant_storage = storage;
  return options;
}

ShardLayout plan(const ModelConfig& config, const EngineOptions& options) {
  const auto none = [](const std::string&, const Shape&) { return std::nullopt; };
  return plan_shards(list_model_stages(config, options.quantization, options.lora, options.dtype, none),
                     options.world_size, options.sharding, options.shard_group);
}

// Llama-2-70B: 68,451,041,280 weights in the linear layers; half a byte each, a byte for 64 of them, a float for 64 *
// 256.
TEST(ShardLayout, HoldsTheBytesThatArithmeticGivesFor70B) {
  const ShardLayout layout = plan(bench::model_shape("llama-2-70b", 0), options(DType::bf16, 2));
  const ResidentBytes held = resident_bytes(layout);
  const std::int64_t weights = 68451041280;
  const std::int64_t padding = std::int64_t{82} * 3 * 64;  // at most an alignment a slot and shard
  const std::int64_t codes = weights / 2 / 2;
  const std::int64_t statistics = (weights / 64 + 4 * (weights / 16384)) / 2;
  EXPECT_NEAR(static_cast<double>(held.codes), static_cast<double>(codes), static_cast<double>(padding));
  EXPECT_NEAR(static_cast<double>(held.statistics), static_cast<double>(statistics), static_cast<double>(padding));
  const std::int64_t lora = 207093760;  // r = 16 over all linear layers
  EXPECT_NEAR(static_cast<double>(held.lora), static_cast<double>(lora), static_cast<double>(padding));
  EXPECT_EQ(layout.units.size(), 82U);
  EXPECT_TRUE(layout.notes.empty());
}

TEST(ShardLayout, EveryParameterHasItsOwnAlignedPlaceInsideTheShards) {
  const ShardLayout layout = plan(bench::model_shape("llama-2-70b", 0), options(DType::u8, 3));
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      std::int64_t end = 0;
      for (const Slot& slot : flat.slots) {
        EXPECT_GE(slot.offset, end) << slot.parameter.name;
        EXPECT_EQ(slot.offset % (flat.trainable ? 2 * kTrainableAlignment : kSlotAlignment), 0) << slot.parameter.name;
        end = slot.offset + slot.parameter.bytes();
      }
      EXPECT_EQ(end, flat.bytes);
      EXPECT_GE(flat.shard_bytes * layout.world_size, flat.bytes);
      EXPECT_EQ(flat.shard_bytes % (flat.trainable ? 2 * kTrainableAlignment : 1), 0);
      EXPECT_EQ(flat.shard_bytes % static_cast<std::int64_t>(size_of(flat.dtype)), 0);
    }
  }
}

TEST(ShardLayout, TrainableFlatsAreCutAtWholeBlocksOfMoments) {
  const std::vector<ModelStage> stages = {{"s",
                                           {{"a", ParameterKind::trained, DType::bf16, {3, 100}},
                                            {"b", ParameterKind::trained, DType::bf16, {70, 3}},
                                            {"c", ParameterKind::trained, DType::bf16, {9, 100}}}}};
  for (const int world_size : {1, 2, 3, 5}) {
    const Flat flat = plan_shards(stages, world_size, ShardingStrategy::full_shard).units[0].flats[0];
    EXPECT_EQ(flat.slots[1].offset, 512 * 2);
    EXPECT_EQ(flat.slots[2].offset, 768 * 2);
    EXPECT_EQ(flat.shard_bytes % 512, 0) << world_size;
    EXPECT_GE(flat.shard_bytes * world_size, 1668 * 2) << world_size;
    EXPECT_LT(flat.shard_bytes, 1668 * 2 / world_size + 514) << world_size;
  }
}

using Piece = std::tuple<std::size_t, std::int64_t, std::int64_t, std::int64_t>;

std::vector<Piece> pieces(std::int64_t offset, std::int64_t size, std::int64_t shard_size) {
  std::vector<Piece> list;
  for (const ShardPiece& piece : cut_into_pieces(offset, size, shard_size)) {
    list.emplace_back(piece.shard, piece.in_shard, piece.in_parameter, piece.size);
  }
  return list;
}

TEST(ShardLayout, AParameterIsCutAtTheShardsEdges) {
  using Pieces = std::vector<Piece>;
  EXPECT_EQ(pieces(3, 4, 10), (Pieces{{0, 3, 0, 4}}));
  EXPECT_EQ(pieces(10, 10, 10), (Pieces{{1, 0, 0, 10}}));
  EXPECT_EQ(pieces(7, 20, 10), (Pieces{{0, 7, 0, 3}, {1, 0, 3, 10}, {2, 0, 13, 7}}));
  EXPECT_TRUE(pieces(7, 0, 10).empty());
}

TEST(ShardLayout, OtherStorageThanTheModelsDtypeSplitsEach4BitLayerOff) {
  const ShardLayout layout = plan(bench::model_shape("llama-2-70b", 0), options(DType::u8, 2));
  EXPECT_EQ(layout.units.size(), 82U + 80U * 7U);
  ASSERT_EQ(layout.notes.size(), 1U);
  EXPECT_THAT(layout.notes[0], HasSubstr("each of the 560 4-bit layers is a unit of its own"));
  EXPECT_THAT(layout.notes[0], HasSubstr("bnb_4bit_quant_storage: bfloat16"));
  const ShardLayout joined = plan(bench::model_shape("llama-2-70b", 0), options(DType::bf16, 2));
  EXPECT_GT(gather_messages(layout), 4 * gather_messages(joined));
}

TEST(ShardLayout, FrozenAndTrainableParametersAreFlattenedApart) {
  const ShardLayout layout = plan(bench::model_shape("llama-2-70b", 0), options(DType::bf16, 2));
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      for (const Slot& slot : flat.slots) EXPECT_EQ(slot.parameter.kind == ParameterKind::trained, flat.trainable);
    }
  }
}

TEST(ShardLayout, NoShardReplicatesAndSendsNothing) {
  EngineOptions replicated = options(DType::bf16, 2);
  replicated.sharding = ShardingStrategy::no_shard;
  const ShardLayout layout = plan(bench::model_shape("llama-2-70b", 0), replicated);
  EXPECT_EQ(gather_messages(layout), 0);
  const std::int64_t sharded =
      resident_bytes(plan(bench::model_shape("llama-2-70b", 0), options(DType::bf16, 2))).codes;
  EXPECT_NEAR(static_cast<double>(resident_bytes(layout).codes), static_cast<double>(2 * sharded), 1e5);
}

TEST(ShardLayout, HybridShardCutsAsItsGroupsDo) {
  EngineOptions hybrid = options(DType::bf16, 8);
  hybrid.sharding = ShardingStrategy::hybrid_shard;
  hybrid.shard_group = 2;
  const ShardLayout layout = plan(bench::model_shape("llama-2-70b", 0), hybrid);
  EXPECT_EQ(layout.shards, 2);
  const ShardLayout two = plan(bench::model_shape("llama-2-70b", 0), options(DType::bf16, 2));
  EXPECT_EQ(gather_messages(layout), gather_messages(two));
  for (std::size_t unit = 0; unit < two.units.size(); ++unit) {
    EXPECT_EQ(gathered_bytes(layout, layout.units[unit]), gathered_bytes(two, two.units[unit]));
    EXPECT_EQ(layout.units[unit].flats[0].shard_bytes, two.units[unit].flats[0].shard_bytes);
  }
  EXPECT_EQ(first_of_group(layout, 0), 0U);
  EXPECT_EQ(first_of_group(layout, 1), 0U);
  EXPECT_EQ(first_of_group(layout, 6), 6U);
  EXPECT_EQ(first_of_group(layout, 7), 6U);
  EXPECT_THAT(describe(layout), HasSubstr("HYBRID_SHARD over 8 ranks, 4 groups of 2"));
}

TEST(ShardLayout, RefusesGroupsThatTheRanksCannotBeDealtTo) {
  EngineOptions hybrid = options(DType::bf16, 6);
  hybrid.sharding = ShardingStrategy::hybrid_shard;
  for (const int group : {0, 4, 12}) {
    hybrid.shard_group = group;
    expect_bad_input({"6 ranks", std::to_string(group)}, [&] { plan(bench::model_shape("llama-2-70b", 0), hybrid); });
  }
}

TEST(ShardLayout, DescribesEqualLayersAsOneLine) {
  const std::string text = describe(plan(bench::model_shape("llama-2-70b", 0), options(DType::bf16, 2)));
  EXPECT_THAT(text, HasSubstr("FULL_SHARD over 2 ranks"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
}

TEST(ModelParameters, TiedEmbeddingsHaveNoOutputHead) {
  ModelConfig config = bench::model_shape("llama-2-70b", 0);
  config.tie_word_embeddings = true;
  const auto none = [](const std::string&, const Shape&) { return std::nullopt; };
  const EngineOptions of = options(DType::bf16, 1);
  const auto stages = list_model_stages(config, of.quantization, of.lora, of.dtype, none);
  EXPECT_EQ(stages.back().parameters.size(), 1U);
}

}  // namespace
}  // namespace qshard
