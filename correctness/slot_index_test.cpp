#include "core/sharding/slot_index.h"

#include <set>

#include <gtest/gtest.h>

#include "core/run/engine_options.h"

namespace qshard {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 100;
  config.qkv_bias = true;
  config.qk_norm = true;
  return config;
}

ShardLayout layout_of(const ModelConfig& config, DType storage) {
  EngineOptions options;
  options.quantization.quant_storage = storage;
  options.lora.target_modules = {"q_proj", "down_proj"};
  const auto none = [](const std::string&, const Shape&) { return std::nullopt; };
  return plan_shards(list_model_stages(config, options.quantization, options.lora, options.dtype, none), 2,
                     options.sharding);
}

std::string name_at(const ShardLayout& layout, const SlotPlace* place) {
  if (place == nullptr) return "none";
  return layout.units[place->unit].flats[place->flat].slots[place->slot].parameter.name;
}

// Whole stages (storage of the model's dtype) and stages split into a unit a layer (bytes).
TEST(SlotIndex, FindsEveryParameterByWhatItIs) {
  for (const DType storage : {DType::bf16, DType::u8}) {
    const ShardLayout layout = layout_of(small_config(), storage);
    const SlotIndex index(layout);
    std::set<std::string> found;
    std::size_t slots = 0;
    for (const Unit& unit : layout.units) {
      for (const Flat& flat : unit.flats) {
        for (const Slot& slot : flat.slots) {
          const Parameter& parameter = slot.parameter;
          const SlotPlace* place = index.find(unit.stage, parameter.role, parameter.projection);
          EXPECT_EQ(name_at(layout, place), parameter.name);
          found.insert(name_at(layout, place));
          ++slots;
        }
      }
    }
    EXPECT_EQ(found.size(), slots);
    const auto name = [&](std::size_t stage, ParameterRole role, Projection projection = Projection::q) {
      return name_at(layout, index.find(stage, role, projection));
    };
    EXPECT_EQ(name(0, ParameterRole::embedding), "model.embed_tokens.weight");
    EXPECT_EQ(name(3, ParameterRole::output_head), "lm_head.weight");
    EXPECT_EQ(name(3, ParameterRole::final_norm), "model.norm.weight");
    EXPECT_EQ(name(1, ParameterRole::input_norm), "model.layers.0.input_layernorm.weight");
    EXPECT_EQ(name(2, ParameterRole::key_norm), "model.layers.1.self_attn.k_norm.weight");
    EXPECT_EQ(name(2, ParameterRole::weight, Projection::up), "model.layers.1.mlp.up_proj.weight");
    EXPECT_EQ(name(2, ParameterRole::absmax, Projection::up), "model.layers.1.mlp.up_proj.weight.absmax");
    EXPECT_EQ(name(2, ParameterRole::nested_absmax, Projection::o),
              "model.layers.1.self_attn.o_proj.weight.nested_absmax");
    EXPECT_EQ(name(2, ParameterRole::bias, Projection::v), "model.layers.1.self_attn.v_proj.bias");
    EXPECT_EQ(name(2, ParameterRole::lora_b, Projection::down), "model.layers.1.mlp.down_proj.lora_B.weight");
  }
}

TEST(SlotIndex, WhatTheModelLacksIsNotFound) {
  ModelConfig config = small_config();
  config.tie_word_embeddings = true;
  const SlotIndex index(layout_of(config, DType::bf16));
  EXPECT_EQ(index.find(3, ParameterRole::output_head), nullptr);
  EXPECT_EQ(index.find(0, ParameterRole::input_norm), nullptr);
  EXPECT_EQ(index.find(1, ParameterRole::bias, Projection::o), nullptr);
  EXPECT_EQ(index.find(1, ParameterRole::lora_a, Projection::up), nullptr);
}

}  // namespace
}  // namespace qshard
