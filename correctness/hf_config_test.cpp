#include "core/formats/hf_config.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/model/model_config.h"
#include "correctness/expect_error.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden(QSHARD_GOLDEN_DIR);

Json small_config() {
  return {{"model_type", "llama"},  {"hidden_size", 64},        {"intermediate_size", 96},
          {"num_hidden_layers", 1}, {"num_attention_heads", 4}, {"vocab_size", 100}};
}

ModelConfig parse_with(const Json& changes) {
  Json json = small_config();
  json.merge_patch(changes);
  return parse_hf_config(json.dump(), "config.json");
}

void expect_refused(const Json& changes, std::initializer_list<std::string_view> texts) {
  SCOPED_TRACE(changes.dump());
  Json json = small_config();
  json.update(changes);
  expect_bad_input(texts, [&] { parse_hf_config(json.dump(), "config.json"); });
}

TEST(ModelConfig, ReadsTheGoldenModel) {
  const ModelConfig config = read_hf_config(kGolden / "llama/base/config.json");
  EXPECT_EQ(config.hidden_size, 256);
  EXPECT_EQ(config.intermediate_size, 688);
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.num_attention_heads, 8);
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.vocab_size, 512);
  EXPECT_EQ(config.max_position_embeddings, 256);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.rope.type, RopeType::standard);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int64_t>{2});
  EXPECT_EQ(config.pad_token_id, std::nullopt);
  EXPECT_EQ(config.dtype, DType::bf16);
  EXPECT_FALSE(config.prequantized_4bit);
  EXPECT_TRUE(read_hf_config(kGolden / "llama/bnb4bit/config.json").prequantized_4bit);
}

TEST(ModelConfig, WhatIsLeftOutTakesTheDefault) {
  const ModelConfig config = parse_with({{"rope_scaling", nullptr}, {"head_dim", nullptr}});
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.dtype, std::nullopt);
  EXPECT_TRUE(config.eos_token_ids.empty());
}

TEST(ModelConfig, ReadsListsOfEndTokensAndBothDtypeKeys) {
  EXPECT_EQ(parse_with({{"eos_token_id", {128001, 128009}}}).eos_token_ids,
            (std::vector<std::int64_t>{128001, 128009}));
  EXPECT_EQ(parse_with({{"pad_token_id", -1}}).pad_token_id, std::nullopt);
  EXPECT_EQ(parse_with({{"torch_dtype", "float16"}}).dtype, DType::f16);
  EXPECT_EQ(parse_with({{"dtype", "float32"}, {"torch_dtype", "float16"}}).dtype, DType::f32);
}

TEST(ModelConfig, OtherModelsAreRefused) {
  for (const char* other : {"gpt2", "gemma2", "mixtral", "phi3", "qwen2_moe", "Llama", ""}) {
    expect_refused({{"model_type", other}},
                   {"config.json: model_type", std::string_view(other), "known: llama, mistral, qwen2, qwen3"});
  }
  expect_refused({{"hidden_act", "gelu"}}, {"config.json: hidden_act", "gelu"});
  expect_refused({{"quantization_config", {{"quant_method", "gptq"}}}}, {"quantization_config: quant_method", "gptq"});
  expect_refused({{"quantization_config", {{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}}}},
                 {"quant_method", "without load_in_4bit"});
}

TEST(ModelConfig, WrongFieldsAreNamed) {
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    Json json = small_config();
    json.erase(key);
    expect_bad_input({"config.json", key, "missing"}, [&] { parse_hf_config(json.dump(), "config.json"); });
    expect_refused({{key, 0}}, {"config.json", key, "at least 1"});
    expect_refused({{key, "64"}}, {"config.json", key, "integer"});
    expect_refused({{key, std::int64_t{1} << 40}}, {"config.json", key, "too large"});
  }
  expect_refused({{"num_key_value_heads", 3}}, {"num_key_value_heads", "does not divide"});
  expect_refused({{"num_attention_heads", 7}}, {"hidden_size", "multiple"});
  expect_refused({{"head_dim", 15}}, {"head_dim", "odd"});
  expect_refused({{"rms_norm_eps", 0.0}}, {"rms_norm_eps", "positive"});
  expect_refused({{"dtype", "int32"}}, {"config.json: dtype", "floating"});
  expect_refused({{"dtype", "float128"}}, {"config.json: dtype", "float128"});
  expect_bad_input({"config.json", "JSON"}, [] { parse_hf_config("{", "config.json"); });
  expect_bad_input({"config.json", "object"}, [] { parse_hf_config("[]", "config.json"); });
}

TEST(ModelConfig, SizesThatNoNumberOfBytesCountsAreRefused) {
  const auto text = [](std::int64_t layers, std::int64_t size) {
    return fmt::format(
        R"({{"model_type": "llama", "hidden_size": {1}, "intermediate_size": {1}, "num_hidden_layers": {0},
            "num_attention_heads": 1, "vocab_size": {1}}})",
        layers, size);
  };
  EXPECT_EQ(parse_hf_config(text(100'000, 2), "c").num_hidden_layers, 100'000);
  expect_bad_input({"c: num_hidden_layers", "100001", "100000"}, [&] { parse_hf_config(text(100'001, 2), "c"); });
  expect_bad_input({"c: hidden_size", "parameters"}, [&] { parse_hf_config(text(1, 2'147'483'646), "c"); });
  expect_bad_input({"c: hidden_size", "parameters"}, [&] { parse_hf_config(text(100'000, 60'000), "c"); });
}

TEST(ModelConfig, TheGoldenQuantizedConfigIsTheGoldenOneWithAQuantization) {
  const ModelConfig base = read_hf_config(kGolden / "llama/base/config.json");
  QuantizationOptions quantization;
  quantization.quant_storage = DType::bf16;
  EXPECT_EQ(config_text(base, quantization, DType::bf16), read_file(kGolden / "llama/bnb4bit/config.json"));
  const ModelConfig quantized = read_hf_config(kGolden / "llama/bnb4bit/config.json");
  EXPECT_EQ(config_text(quantized), read_file(kGolden / "llama/base/config.json"));
}

}  // namespace
}  // namespace qshard
