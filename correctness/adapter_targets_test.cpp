#include "core/formats/adapter_targets.h"

#include "core/base/json.h"
#include "core/model/lora_targets.h"
#include "correctness/expect_error.h"

namespace qshard {
namespace {

AdapterConfig parse_with(const Json& changes) {
  Json json = {{"peft_type", "LORA"}, {"target_modules", {"q_proj"}}};
  json.update(changes);
  return parse_adapter_config(json.dump(), "adapter_config.json");
}

// What PEFT's check_target_module_exists answers.
TEST(AdapterTargets, TargetsAreWhatPeftTakesThemFor) {
  const std::string q = "model.layers.11.self_attn.q_proj";
  const auto in_list = [](const std::vector<std::string>& names, std::string_view module) {
    return is_target(names, module);
  };
  EXPECT_TRUE(in_list({"q_proj"}, q));
  EXPECT_TRUE(in_list({"k_proj", "self_attn.q_proj"}, q));
  EXPECT_TRUE(in_list({q}, q));
  EXPECT_TRUE(in_list({"q_proj"}, "q_proj"));
  EXPECT_FALSE(in_list({"_proj"}, q));
  EXPECT_FALSE(in_list({"attn.q_proj"}, q));
  EXPECT_FALSE(in_list({"model.layers.1.self_attn.q_proj"}, q));
  EXPECT_FALSE(in_list({"k_proj"}, q));
  EXPECT_FALSE(in_list({}, q));
  EXPECT_TRUE(in_list({"all-linear"}, q));
  EXPECT_FALSE(in_list({"all-linear"}, "lm_head"));
  EXPECT_TRUE(is_target(parse_with({{"target_modules", "All-Linear"}}), q));
}

TEST(AdapterTargets, APatternMustMatchTheWholeName) {
  const std::string q = "model.layers.11.self_attn.q_proj";
  EXPECT_TRUE(is_target(parse_with({{"target_modules", R"(.*\.(q|v)_proj)"}}), q));
  EXPECT_TRUE(is_target(parse_with({{"target_modules", R"(model\.layers\.\d+\.self_attn\.[qk]_proj)"}}), q));
  EXPECT_FALSE(is_target(parse_with({{"target_modules", "q_proj"}}), q));
  EXPECT_TRUE(is_target(parse_with({{"target_modules", R"(.*(?<=self_attn\.)[qkv]_proj)"}}), q));
  EXPECT_TRUE(is_target(parse_with({{"target_modules", R"(.*\.(?P<m>q_proj|v_proj))"}}), q));
  EXPECT_TRUE(is_target(parse_with({{"target_modules", R"(.*(?i:Q_PROJ))"}}), q));
  EXPECT_FALSE(is_target(parse_with({{"target_modules", R"(.*\.q)"}}), q));
  expect_bad_input({"target_modules", "(q"}, [&] { is_target(parse_with({{"target_modules", "(q"}}), q); });
  expect_bad_input({"target_modules", "limit"}, [&] {
    is_target(parse_with({{"target_modules", "(([a-z._0-9]+)+)+[!#]"}}), q);
  });
  const std::string deep(100'000, '(');
  expect_bad_input({"target_modules", "too long"}, [&] { is_target(parse_with({{"target_modules", deep}}), q); });
}

TEST(AdapterTargets, ExcludedModulesAndOtherLayersHaveNoPart) {
  const std::string q = "model.layers.11.self_attn.q_proj";
  EXPECT_FALSE(is_target(parse_with({{"exclude_modules", {"q_proj"}}}), q));
  EXPECT_TRUE(is_target(parse_with({{"exclude_modules", {"k_proj"}}}), q));
  EXPECT_FALSE(is_target(parse_with({{"exclude_modules", R"(.*\.11\..*)"}}), q));
  EXPECT_TRUE(is_target(parse_with({{"layers_to_transform", 11}}), q));
  EXPECT_TRUE(is_target(parse_with({{"layers_to_transform", {1, 11}}, {"layers_pattern", "layers"}}), q));
  EXPECT_FALSE(is_target(parse_with({{"layers_to_transform", {1}}}), q));
  EXPECT_TRUE(is_target(parse_with({{"layers_to_transform", {1}}, {"target_modules", {q}}}), q));
  EXPECT_FALSE(is_target(parse_with({{"layers_to_transform", {11}}, {"layers_pattern", {"h", "blocks"}}}), q));
}

TEST(AdapterTargets, RankAndAlphaFollowTheirPatterns) {
  const AdapterConfig config = parse_with({{"r", 8},
                                           {"lora_alpha", 16},
                                           {"rank_pattern", {{"q_proj", 4}, {R"(layers\.1\.mlp\..*)", 12}}},
                                           {"alpha_pattern", {{"v_proj", 32}}}});
  EXPECT_EQ(lora_module(config, "model.layers.0.self_attn.q_proj").r, 4);
  EXPECT_EQ(lora_module(config, "model.layers.0.self_attn.q_proj").alpha, 16);
  EXPECT_EQ(lora_module(config, "model.layers.1.mlp.up_proj").r, 12);
  EXPECT_EQ(lora_module(config, "model.layers.11.mlp.up_proj").r, 8);
  EXPECT_EQ(lora_module(config, "model.layers.0.self_attn.v_proj").alpha, 32);
  AdapterConfig stable = config;
  stable.use_rslora = true;
  const LoraModule module = lora_module(stable, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(module.alpha / module.r, 8);  // 16 / sqrt(4)
  const AdapterConfig twice = parse_with({{"rank_pattern", {{"q_proj", 4}, {".*q_proj", 5}}}});
  expect_bad_input({"rank_pattern", "two keys"}, [&] { lora_module(twice, "model.layers.0.self_attn.q_proj"); });
}

}  // namespace
}  // namespace qshard
