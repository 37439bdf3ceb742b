#include "core/formats/adapter_config.h"

#include <cmath>

#include "core/base/file.h"
#include "core/base/json.h"
#include "correctness/expect_error.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden(QSHARD_GOLDEN_DIR);

AdapterConfig parse_with(const Json& changes) {
  Json json = {{"peft_type", "LORA"}, {"target_modules", {"q_proj"}}};
  json.update(changes);
  return parse_adapter_config(json.dump(), "adapter_config.json");
}

void expect_refused(const Json& changes, std::initializer_list<std::string_view> texts) {
  SCOPED_TRACE(changes.dump());
  expect_bad_input({"adapter_config.json"}, [&] { parse_with(changes); });
  expect_bad_input(texts, [&] { parse_with(changes); });
}

TEST(AdapterConfig, TheGoldenConfigurationsComeBackAsTheSameText) {
  for (const char* name : {"adapter_init", "adapter_final_fp32", "adapter_final_bf16"}) {
    const std::string text = read_file(kGolden / "llama" / name / "adapter_config.json");
    const AdapterConfig config = parse_adapter_config(text, "f");
    EXPECT_EQ(config.r, 8);
    EXPECT_EQ(config.lora_alpha, 16.0);
    EXPECT_EQ(config.lora_dropout, 0.0);
    EXPECT_EQ(config.scaling(), 2.0);
    EXPECT_EQ(config.target_modules.size(), 14U);
    EXPECT_EQ(config.base_model_name_or_path, "base");
    EXPECT_EQ(adapter_config_text(config), text);
  }
}

TEST(AdapterConfig, EveryFieldComesBack) {
  const AdapterConfig config = parse_with({{"r", 3},
                                           {"lora_alpha", 2.5},
                                           {"lora_dropout", 0.05},
                                           {"target_modules", ".*_proj"},
                                           {"task_type", nullptr},
                                           {"use_rslora", true},
                                           {"use_dora", true},
                                           {"modules_to_save", {"lm_head", "embed_tokens"}},
                                           {"loftq_config", {{"bits", 4}}}});
  EXPECT_EQ(config.scaling(), 2.5 / std::sqrt(3.0));
  const AdapterConfig back = parse_adapter_config(adapter_config_text(config), "f");
  EXPECT_EQ(back.r, 3);
  EXPECT_EQ(back.lora_alpha, 2.5);
  EXPECT_EQ(back.lora_dropout, 0.05);
  EXPECT_EQ(back.target_pattern, ".*_proj");
  EXPECT_EQ(back.task_type, std::nullopt);
  EXPECT_EQ(back.base_model_name_or_path, std::nullopt);
  EXPECT_TRUE(back.use_rslora);
  EXPECT_TRUE(back.use_dora);
  EXPECT_FALSE(back.lora_bias);
  EXPECT_EQ(back.modules_to_save, (std::vector<std::string>{"lm_head", "embed_tokens"}));
  EXPECT_TRUE(parse_adapter_config(adapter_config_text(parse_with({{"lora_bias", true}})), "f").lora_bias);
}

TEST(AdapterConfig, WhatIsNotComputedHereIsRefused) {
  expect_refused({{"peft_type", "LOHA"}}, {"peft_type", "LOHA"});
  expect_refused({{"bias", "some"}}, {"bias", "some"});
  expect_refused({{"lora_bias", true}, {"use_dora", true}}, {"lora_bias", "use_dora"});
  for (const char* start : {"pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga"}) {
    expect_refused({{"init_lora_weights", start}}, {"init_lora_weights", start, "save_pretrained"});
  }
  expect_refused({{"a_key_of_tomorrow", 1}}, {"a_key_of_tomorrow", "unknown"});
  EXPECT_NO_THROW(parse_with({{"a_key_of_tomorrow", nullptr}}));
  EXPECT_NO_THROW(parse_with({{"init_lora_weights", "gaussian"}}));
  expect_refused({{"modules_to_save", {"lm_head", "score"}}}, {"modules_to_save", "score", "embed_tokens"});
  expect_refused({{"rank_pattern", {{"q_proj", 0}}}}, {"rank_pattern", "q_proj", "at least 1"});
  expect_refused({{"alpha_pattern", {{"q_proj", "4"}}}}, {"alpha_pattern", "q_proj", "number"});
  expect_refused({{"fan_in_fan_out", true}}, {"fan_in_fan_out"});
  expect_refused({{"layers_pattern", "layers"}}, {"layers_pattern", "layers_to_transform"});
  expect_refused({{"target_modules", ".*q_proj"}, {"layers_to_transform", 1}}, {"layers_to_transform", "list"});
}

TEST(AdapterConfig, WrongFieldsAreNamed) {
  expect_refused({{"r", 0}}, {"r", "at least 1"});
  expect_refused({{"r", 8.5}}, {"r", "integer"});
  expect_refused({{"r", 4294967296}}, {"r", "too large"});
  expect_refused({{"lora_alpha", "16"}}, {"lora_alpha", "number"});
  expect_refused({{"lora_dropout", 1.0}}, {"lora_dropout", "less than 1"});
  expect_refused({{"lora_dropout", -0.1}}, {"lora_dropout", "at least 0"});
  expect_refused({{"target_modules", nullptr}}, {"target_modules", "missing"});
  expect_refused({{"target_modules", {1}}}, {"target_modules", "strings"});
  expect_bad_input({"f: peft_type", "missing"}, [] { parse_adapter_config("{}", "f"); });
  expect_bad_input({"f", "JSON"}, [] { parse_adapter_config("{", "f"); });
}

}  // namespace
}  // namespace qshard
