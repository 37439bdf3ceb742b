// The pointers that a decoder layer gets, and the memory that a run is planned with: neither needs a GPU.
#include <filesystem>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "core/formats/hf_config.h"
#include "correctness/expect_error.h"
#include "optimized/sharded/model_plan.h"

namespace qshard::optimized {
namespace {

EngineOptions options_of(DType storage) {
  EngineOptions options;
  options.dtype = options.compute_dtype = DType::bf16;
  options.quantization.quant_storage = storage;
  options.lora.r = 8;
  options.lora.target_modules = {"q_proj", "v_proj", "down_proj"};
  return options;
}

ModelPlan plan_of(const char* family, DType storage, int world_size) {
  const auto path = std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / family / "base" / "config.json";
  return make_model_plan(read_hf_config(path), *make_random_source(0.02, 1), options_of(storage),
                         {{96, 4, 48}, {96, 4, 48}}, world_size);
}

std::int64_t resident(const ShardPlaces& places) {
  return places.bytes(ShardRange::frozen) + places.bytes(ShardRange::trainable) + places.bytes(ShardRange::constants);
}

/// A rank that holds everything, in memory that nobody reads or writes.
class WholeRank {
 public:
  explicit WholeRank(const ModelPlan& plan)
      : plan_(&plan),
        places_(plan.layout, plan.infos.size()),
        memory_(static_cast<std::size_t>(resident(places_)) * 8),
        arena_(memory_.data(), std::ssize(memory_)),
        shards_(places_, false, arena_),
        table(plan.config, plan.layout, plan.infos, DType::bf16, 16,
              reinterpret_cast<const float*>(shards_.at(ShardRange::constants))),
        gatherer(plan.layout, places_, shards_, nullptr, nullptr, arena_),
        gradients(plan.layout, places_, nullptr, nullptr, arena_) {}

  /// Where the parameter of that name lies; null where the model has none.
  [[nodiscard]] const void* address(const std::string& name) const {
    for (std::size_t unit = 0; unit < plan_->layout.units.size(); ++unit) {
      const std::vector<Flat>& flats = plan_->layout.units[unit].flats;
      for (std::size_t flat = 0; flat < flats.size(); ++flat) {
        for (const Slot& slot : flats[flat].slots) {
          if (slot.parameter.name != name) continue;
          return shards_.at(range_of(flats[flat])) + places_.offset(unit, flat) + slot.offset;
        }
      }
    }
    return nullptr;
  }
  /// And its gradient.
  [[nodiscard]] const float* gradient(const std::string& name) const {
    for (std::size_t unit = 0; unit < plan_->layout.units.size(); ++unit) {
      const std::vector<Flat>& flats = plan_->layout.units[unit].flats;
      for (std::size_t flat = 0; flat < flats.size(); ++flat) {
        for (const Slot& slot : flats[flat].slots) {
          if (slot.parameter.name == name) return gradients.flat(unit, flat) + slot.offset / 2;  // bf16
        }
      }
    }
    return nullptr;
  }
  [[nodiscard]] const float* constants(const std::string& weight) const {
    return reinterpret_cast<const float*>(shards_.at(ShardRange::constants)) +
           std::distance(plan_->infos.begin(), plan_->infos.find(weight)) * kNestedConstants;
  }

 private:
  const ModelPlan* plan_;
  ShardPlaces places_;
  std::vector<std::byte> memory_;
  Arena arena_;
  ShardMemory shards_;

 public:
  WeightTable table;
  UnitGatherer gatherer;
  AdapterGradients gradients;
};

void expect_linear(const WholeRank& rank, const std::string& module, const LinearPointers& linear) {
  SCOPED_TRACE(module);
  const DeviceWeight4bit& quantized = linear.weight.quantized;
  EXPECT_TRUE(linear.weight.in_4bit);
  EXPECT_EQ(quantized.codes, rank.address(module + ".weight"));
  EXPECT_EQ(quantized.absmax_codes, rank.address(module + ".weight.absmax"));
  EXPECT_EQ(quantized.nested_absmax, rank.address(module + ".weight.nested_absmax"));
  EXPECT_EQ(quantized.nested_map, rank.constants(module + ".weight"));
  EXPECT_EQ(quantized.offset, quantized.nested_map + 256);
  EXPECT_EQ(quantized.elements, linear.weight.out * linear.weight.in);
  EXPECT_EQ(linear.bias, rank.address(module + ".bias"));
  EXPECT_EQ(linear.lora.a, rank.address(module + ".lora_A.weight"));
  EXPECT_EQ(linear.lora.b, rank.address(module + ".lora_B.weight"));
  EXPECT_EQ(linear.lora.a_gradient, rank.gradient(module + ".lora_A.weight"));
  EXPECT_EQ(linear.lora.b_gradient, rank.gradient(module + ".lora_B.weight"));
  EXPECT_EQ(linear.lora.rank, linear.lora.a == nullptr ? 0 : 8);
  EXPECT_EQ(linear.lora.scaling, linear.lora.a == nullptr ? 1 : 2);
}

class WeightTableOf : public testing::TestWithParam<std::tuple<const char*, DType>> {};

TEST_P(WeightTableOf, PointsAtEveryParameter) {
  const auto [family, storage] = GetParam();
  const ModelPlan plan = plan_of(family, storage, 1);
  const WholeRank rank(plan);
  const auto modules = layer_modules(plan.config);
  for (std::int64_t layer = 0; layer < plan.config.num_hidden_layers; ++layer) {
    const LayerWeights weights = rank.table.layer(layer, rank.gatherer, &rank.gradients);
    const auto at = [&](const char* name) { return rank.address(module_path(layer, name) + ".weight"); };
    EXPECT_NE(weights.input_norm, nullptr);
    EXPECT_EQ(weights.input_norm, at("input_layernorm"));
    EXPECT_EQ(weights.post_attention_norm, at("post_attention_layernorm"));
    EXPECT_EQ(weights.query_norm, at("self_attn.q_norm"));
    EXPECT_EQ(weights.key_norm, at("self_attn.k_norm"));
    EXPECT_EQ(weights.query_norm != nullptr, plan.config.qk_norm);
    for (std::size_t role = 0; role < kProjections; ++role) {
      expect_linear(rank, module_path(layer, modules[role].name), weights.projections[role]);
    }
  }
  const auto parameter = [&](const SlotPlace& place) { return rank.table.parameter(place, rank.gatherer); };
  const bool tied = plan.config.tie_word_embeddings;
  EXPECT_EQ(parameter(rank.table.embedding()), rank.address("model.embed_tokens.weight"));
  EXPECT_EQ(parameter(rank.table.final_norm()), rank.address("model.norm.weight"));
  EXPECT_EQ(parameter(rank.table.output_head()), rank.address(tied ? "model.embed_tokens.weight" : "lm_head.weight"));
}

INSTANTIATE_TEST_SUITE_P(Families, WeightTableOf,
                         testing::Combine(testing::Values("qwen2", "qwen3", "llama_bias", "mistral_window"),
                                          testing::Values(DType::bf16, DType::u8)),
                         [](const auto& of) {
                           return std::string(std::get<0>(of.param)) +
                                  (std::get<1>(of.param) == DType::bf16 ? "_bf16" : "_u8");
                         });

// The bytes in use at the peak, gaps included, are the allocation; keeping activations only adds to it; and a second
// dry run gives the same plan.
TEST(MemoryPlanOf, ARunIsADryRunOfIt) {
  for (const int world_size : {1, 2, 3}) {
    const ModelPlan plan = plan_of("qwen3", DType::bf16, world_size);
    const ShardPlaces places(plan.layout, plan.infos.size());
    const auto source = make_random_source(0.02, 1);
    const WeightLoader loader(plan.layout, places, plan.infos, plan.options.quantization, *source);
    std::int64_t before = 0;
    for (std::int64_t kept = 0; kept <= plan.config.num_hidden_layers; ++kept) {
      const MemoryPlan memory = plan_memory(plan, places, loader, {.kept_layers = kept});
      const std::int64_t used = std::accumulate(memory.at_peak.begin(), memory.at_peak.end(), std::int64_t{0},
                                                [](std::int64_t sum, const MemoryUse& use) { return sum + use.bytes; });
      EXPECT_EQ(used, memory.arena_bytes);
      EXPECT_GE(memory.arena_bytes, before);
      EXPECT_EQ(plan_memory(plan, places, loader, {.kept_layers = kept}).arena_bytes, memory.arena_bytes);
      RecordProperty("world " + std::to_string(world_size) + " kept " + std::to_string(kept),
                     std::to_string(memory.arena_bytes));
      before = memory.arena_bytes;
    }
    EXPECT_GT(before, resident(places));
  }
}

// Llama-2-70B at r 64 and 2,048 tokens on two cards of 24 GB: what the project promises. Sizes from the shapes: codes
// are half a byte a weight.
TEST(MemoryPlanOf, Llama70bFitsTwoCardsOf24Gb) {
  const ModelConfig config = bench::model_shape("llama-2-70b", 0);
  EngineOptions options;
  options.dtype = options.compute_dtype = DType::bf16;
  options.lora.r = 64;
  options.lora.dropout = 0.1;
  options.world_size = 2;
  options.memory_budget = std::int64_t{23} << 30 | std::int64_t{1} << 29;
  const MemoryPlans plans =
      plan_run_memory(config, *make_random_source(0.02, 1), options, {{2048, 1, 2048}, {2048, 1, 2048}});
  ASSERT_TRUE(plans.within_budget.has_value());
  EXPECT_LE(plans.within_budget->device_bytes() + plans.outside, options.memory_budget);
  EXPECT_TRUE(plans.within_budget->choice.inputs_on_host);
  EXPECT_EQ(plans.within_budget->host_bytes, std::int64_t{80} * 2048 * 8192 * 2);
  EXPECT_EQ(plans.within_budget->peak_in, "training step");
  EXPECT_EQ(plans.fastest.choice.kept_layers, 80);
  EXPECT_LT(plans.smallest.arena_bytes, plans.fastest.arena_bytes);
  EXPECT_GT(plans.smallest.arena_bytes, std::int64_t{68} << 28);  // codes, half of 34.2 GB, are not all
  options.memory_budget = std::int64_t{22} << 30;
  EXPECT_FALSE(
      plan_run_memory(config, *make_random_source(0.02, 1), options, {{2048, 1, 2048}, {}}).within_budget.has_value());
}

// Recomputation leaves the last layer out where that takes no more memory; where the head is not gathered early it
// would.
TEST(MemoryPlanOf, RecomputationKeepsTheLastLayerWhereThatIsFree) {
  const ModelConfig config = bench::model_shape("llama-2-70b", 80);
  const auto source = make_random_source(0.02, 1);
  EngineOptions options;
  options.dtype = options.compute_dtype = DType::bf16;
  options.gradient_checkpointing = MemorySaving::always;
  options.lora.r = 64;
  options.lora.dropout = 0.1;
  options.world_size = 2;
  const RunBounds bounds{{2048, 1, 2048}, {}};
  const auto plan_within = [&](std::int64_t mib) {
    options.memory_budget = mib << 20;
    return plan_run_memory(config, *source, options, bounds).within_budget.value();
  };
  const MemoryPlan roomy = plan_within(40 << 10);
  EXPECT_EQ(roomy.choice.kept_layers, 1);
  const ModelPlan plan = make_model_plan(config, *source, options, bounds, 2);
  const ShardPlaces places(plan.layout, plan.infos.size());
  const WeightLoader loader(plan.layout, places, plan.infos, options.quantization, *source);
  MemoryChoice none = roomy.choice;
  none.kept_layers = 0;
  EXPECT_EQ(plan_memory(plan, places, loader, none).device_bytes(), roomy.device_bytes());

  const MemoryPlan tight = plan_within(24064);
  EXPECT_FALSE(tight.choice.early_head);
  EXPECT_EQ(tight.choice.kept_layers, 0);
}

// The first saving is the one that costs least; each budget is kept.
TEST(MemoryPlanOf, ARunSavesOnlyWhatItMust) {
  const ModelConfig config =
      read_hf_config(std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / "qwen3" / "base" / "config.json");
  const auto source = make_random_source(0.02, 1);
  EngineOptions options = options_of(DType::bf16);
  options.world_size = 2;
  const RunBounds bounds{{4096, 4, 2048}, {64, 1, 64}};
  const MemoryPlans free = plan_run_memory(config, *source, options, bounds);
  EXPECT_FALSE(free.within_budget.has_value());
  const std::int64_t most = free.fastest.device_bytes() + free.outside;
  const std::int64_t least = free.smallest.device_bytes() + free.outside;
  bool offloaded = false;
  std::int64_t kept = config.num_hidden_layers;
  for (std::int64_t budget = most; budget >= least; budget -= (most - least) / 13) {
    options.memory_budget = budget;
    const auto plan = plan_run_memory(config, *source, options, bounds).within_budget;
    ASSERT_TRUE(plan.has_value()) << budget;
    EXPECT_LE(plan->device_bytes() + free.outside, budget);
    EXPECT_TRUE(budget < most || plan->choice.kept_layers == config.num_hidden_layers);
    EXPECT_TRUE(plan->choice.inputs_on_host != offloaded || plan->choice.kept_layers <= kept);
    EXPECT_GE(plan->choice.inputs_on_host, offloaded);
    offloaded = plan->choice.inputs_on_host;
    kept = plan->choice.kept_layers;
  }
  options.activation_offloading = MemorySaving::always;
  options.memory_budget = most;
  EXPECT_TRUE(plan_run_memory(config, *source, options, bounds).within_budget->choice.inputs_on_host);
  options.gradient_checkpointing = MemorySaving::always;
  const RunBounds few{{1024, 4, 512}, {64, 1, 64}};  // the last layer's activations cost nothing
  EXPECT_EQ(plan_run_memory(config, *source, options, few).within_budget->choice.kept_layers, 1);
  EXPECT_EQ(plan_run_memory(config, *source, options, bounds).within_budget->choice.kept_layers, 0);
}

// "At least" and "at most" keep to what the options ask for, and where nothing fits it is said what would help.
TEST(MemoryPlanOf, TheSmallestDoesWhatTheOptionsAllow) {
  const ModelConfig config = bench::model_shape("llama-3-8b", 0);
  const auto source = make_random_source(0.02, 1);
  const RunBounds bounds{{4096, 2, 2048}, {}};
  EngineOptions options;
  options.dtype = options.compute_dtype = DType::bf16;
  options.activation_offloading = MemorySaving::never;
  const MemoryPlans in_place = plan_run_memory(config, *source, options, bounds);
  EXPECT_FALSE(in_place.smallest.choice.inputs_on_host);
  const std::int64_t least = in_place.smallest.device_bytes() + in_place.outside;
  options.memory_budget = least;
  EXPECT_TRUE(plan_run_memory(config, *source, options, bounds).within_budget.has_value());
  options.memory_budget = least - 1;
  const MemoryPlans too_little = plan_run_memory(config, *source, options, bounds);
  EXPECT_FALSE(too_little.within_budget.has_value());
  for (const char* remedy : {"training.activation_offloading: true saves", "training.optim: adamw_8bit saves",
                             "fsdp.fsdp_offload_params: true saves", "more GPUs"}) {
    EXPECT_NE(too_little.remedies.find(remedy), std::string::npos) << remedy;
  }
  options.sharding = ShardingStrategy::no_shard;
  const std::string unshared = plan_run_memory(config, *source, options, bounds).remedies;
  EXPECT_NE(unshared.find("FULL_SHARD"), std::string::npos);
  EXPECT_EQ(unshared.find("more GPUs"), std::string::npos);

  options.gradient_checkpointing = MemorySaving::never;
  EXPECT_EQ(plan_run_memory(config, *source, options, bounds).smallest.choice.kept_layers, config.num_hidden_layers);
  options.gradient_checkpointing = MemorySaving::always;
  EXPECT_EQ(plan_run_memory(config, *source, options, bounds).fastest.choice.kept_layers, 0);
}

TEST(MemoryPlanOf, WhatGpusDoNotTakeIsRefusedByItsKey) {
  const ModelConfig config = bench::model_shape("llama-3-8b", 2);
  const auto source = make_random_source(0.02, 1);
  EngineOptions options;
  options.dtype = options.compute_dtype = DType::bf16;
  const auto refused = [&](const RunBounds& bounds, std::string_view key) {
    expect_bad_input({key}, [&] { plan_run_memory(config, *source, options, bounds); });
  };
  const BatchBound large{1 << 20, 8, 1 << 17};
  refused({large, {}}, "training.per_device_train_batch_size");
  refused({{}, large}, "training.per_device_eval_batch_size");
  options.lora.r = 257;
  refused({{64, 1, 64}, {}}, "lora.r is 257");
}

MemoryPlan memory_of(ModelPlan plan, Transport transport, bool offload) {
  plan.options.transport = transport;
  plan.options.offload = offload;
  const ShardPlaces places(plan.layout, plan.infos.size());
  const auto source = make_random_source(0.02, 1);
  return plan_memory(plan, places, WeightLoader(plan.layout, places, plan.infos, plan.options.quantization, *source),
                     {});
}

// Offload takes the frozen shards off the device; with one rank two gathered layers and the head take their place.
TEST(MemoryPlanOf, TransportsHoldWhatTheyNeed) {
  for (const int world_size : {1, 2, 4}) {
    const ModelPlan plan = plan_of("qwen3", DType::bf16, world_size);
    const ShardPlaces places(plan.layout, plan.infos.size());
    const MemoryPlan peer = memory_of(plan, Transport::peer, false);
    const MemoryPlan host = memory_of(plan, Transport::host, false);
    const MemoryPlan nccl = memory_of(plan, Transport::nccl, false);
    const MemoryPlan offload = memory_of(plan, Transport::host, true);
    EXPECT_EQ(peer.host_bytes, 0);
    EXPECT_EQ(nccl.host_bytes, 0);
    EXPECT_LE(host.arena_bytes, peer.arena_bytes);
    EXPECT_GE(host.host_bytes, resident(places));
    EXPECT_EQ(offload.host_bytes, host.host_bytes);
    EXPECT_EQ(peer.table_bytes, 0);
    EXPECT_EQ(peer.allocation_bytes() % (2 << 20), 0);
    EXPECT_GE(peer.allocation_bytes(), peer.arena_bytes);
    EXPECT_LT(peer.allocation_bytes(), peer.arena_bytes + (2 << 20));
    EXPECT_EQ(host.table_bytes, world_size * host.host_bytes / 4096 * 8);
    EXPECT_EQ(nccl.table_bytes, 0);
    if (world_size == 1) continue;
    EXPECT_GT(nccl.arena_bytes, peer.arena_bytes);
    EXPECT_LE(offload.arena_bytes, host.arena_bytes - places.bytes(ShardRange::frozen) + 4096);
  }
}

}  // namespace
}  // namespace qshard::optimized
