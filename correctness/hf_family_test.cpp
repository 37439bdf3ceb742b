#include "core/formats/hf_family.h"

#include "core/formats/hf_config.h"
#include "correctness/expect_error.h"

namespace qshard {
namespace {

Json config_of(std::string_view family) {
  return {{"model_type", family},   {"hidden_size", 4096},       {"intermediate_size", 96},
          {"num_hidden_layers", 4}, {"num_attention_heads", 32}, {"vocab_size", 100}};
}

// `changes` may hold null, which stays in the file.
ModelConfig parse(std::string_view family, const Json& changes = Json::object()) {
  Json json = config_of(family);
  json.update(changes);
  return parse_hf_config(json.dump(), "config.json");
}

void expect_refused(std::string_view family, const Json& changes, std::initializer_list<std::string_view> texts) {
  SCOPED_TRACE(changes.dump());
  expect_bad_input(texts, [&] { parse(family, changes); });
}

TEST(HfFamily, WhatIsLeftOutTakesTheFamilysDefault) {
  const ModelConfig llama = parse("llama");
  EXPECT_EQ(llama.num_key_value_heads, 32);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_EQ(llama.head_dim, 128);
  const ModelConfig mistral = parse("mistral");
  EXPECT_EQ(mistral.num_key_value_heads, 8);
  EXPECT_EQ(mistral.max_position_embeddings, 131072);
  EXPECT_EQ(mistral.window(0), 4096);
  EXPECT_EQ(mistral.window(3), 4096);
  const ModelConfig qwen2 = parse("qwen2", {{"num_attention_heads", 64}});
  EXPECT_EQ(qwen2.num_key_value_heads, 32);
  EXPECT_EQ(qwen2.max_position_embeddings, 32768);
  EXPECT_EQ(qwen2.head_dim, 64);
  EXPECT_EQ(qwen2.window(0), 0);
  const ModelConfig qwen3 = parse("qwen3", {{"num_attention_heads", 64}});
  EXPECT_EQ(qwen3.num_key_value_heads, 32);
  EXPECT_EQ(qwen3.head_dim, 128);  // not 4096 / 64
  EXPECT_EQ(qwen3.window(0), 0);
  for (const ModelConfig& config : {llama, mistral, qwen2, qwen3}) {
    EXPECT_EQ(config.rms_norm_eps, 1e-6);
    EXPECT_EQ(config.rope.theta, 10000.0);
    EXPECT_FALSE(config.tie_word_embeddings);
  }
}

TEST(HfFamily, NullIsNotLeftOut) {
  const Json null = {{"num_key_value_heads", nullptr}, {"head_dim", nullptr}, {"sliding_window", nullptr}};
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
    SCOPED_TRACE(family);
    const ModelConfig config = parse(family, null);
    EXPECT_EQ(config.num_key_value_heads, 32);
    EXPECT_EQ(config.head_dim, 128);
    EXPECT_EQ(config.window(0), 0);
  }
}

std::string biases(const ModelConfig& config) {
  return std::string(config.qkv_bias ? "qkv " : "") + (config.o_bias ? "o " : "") + (config.mlp_bias ? "mlp " : "") +
         (config.qk_norm ? "norm" : "");
}

TEST(HfFamily, EachHasItsOwnBiasesAndNorms) {
  const Json both = {{"attention_bias", true}, {"mlp_bias", true}};
  EXPECT_EQ(biases(parse("llama")), "");
  EXPECT_EQ(biases(parse("llama", {{"attention_bias", true}})), "qkv o ");
  EXPECT_EQ(biases(parse("llama", {{"mlp_bias", true}})), "mlp ");
  EXPECT_EQ(biases(parse("llama", both)), "qkv o mlp ");
  EXPECT_EQ(biases(parse("mistral", both)), "");
  EXPECT_EQ(biases(parse("qwen2")), "qkv ");
  EXPECT_EQ(biases(parse("qwen2", both)), "qkv ");
  EXPECT_EQ(biases(parse("qwen3")), "norm");
  EXPECT_EQ(biases(parse("qwen3", both)), "qkv o norm");
}

std::vector<std::int64_t> windows(const ModelConfig& config) {
  std::vector<std::int64_t> result;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) result.push_back(config.window(layer));
  return result;
}

TEST(HfFamily, WindowsByLayer) {
  using Windows = std::vector<std::int64_t>;
  EXPECT_EQ(windows(parse("mistral", {{"sliding_window", 16}})), (Windows{16, 16, 16, 16}));
  EXPECT_EQ(windows(parse("llama", {{"sliding_window", 16}})), (Windows{0, 0, 0, 0}));
  for (const char* family : {"qwen2", "qwen3"}) {
    const auto with = [family](const Json& changes) { return windows(parse(family, changes)); };
    EXPECT_EQ(with({{"sliding_window", 16}}), (Windows{0, 0, 0, 0}));
    EXPECT_EQ(with({{"use_sliding_window", true}}), (Windows{0, 0, 0, 0}));  // from layer 28 on
    EXPECT_EQ(with({{"use_sliding_window", true}, {"max_window_layers", 3}}), (Windows{0, 0, 0, 4096}));
    EXPECT_EQ(with({{"use_sliding_window", true}, {"sliding_window", 16}, {"max_window_layers", 1}}),
              (Windows{0, 16, 16, 16}));
    EXPECT_EQ(with({{"use_sliding_window", true}, {"sliding_window", nullptr}, {"max_window_layers", 0}}),
              (Windows{0, 0, 0, 0}));
    const Json types = {"sliding_attention", "full_attention", "full_attention", "sliding_attention"};
    EXPECT_EQ(with({{"use_sliding_window", true}, {"sliding_window", 8}, {"layer_types", types}}),
              (Windows{8, 0, 0, 8}));
    EXPECT_EQ(with({{"use_sliding_window", false}, {"sliding_window", 8}, {"layer_types", types}}),
              (Windows{0, 0, 0, 0}));
  }
}

TEST(HfFamily, WrongWindowsAreNamed) {
  expect_refused("mistral", {{"sliding_window", 0}}, {"sliding_window", "at least 1"});
  expect_refused("mistral", {{"sliding_window", std::int64_t{1} << 40}}, {"sliding_window", "too large"});
  const Json on = {{"use_sliding_window", true}};
  const auto with = [&on](const Json& changes) {
    Json json = on;
    json.update(changes);
    return json;
  };
  expect_refused("qwen2", with({{"layer_types", {"full_attention"}}}), {"layer_types", "1 layers", "4"});
  expect_refused("qwen3",
                 with({{"layer_types", {"full_attention", "full_attention", "full_attention", "linear_attention"}}}),
                 {"layer_types", "linear_attention", "sliding_attention"});
  expect_refused("qwen3", with({{"max_window_layers", -1}}), {"max_window_layers", "at least 0"});
}

}  // namespace
}  // namespace qshard
