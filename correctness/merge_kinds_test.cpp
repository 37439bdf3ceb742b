// qshard merge, from outside, of adapters with more than A and B: biases, tables, what their kind asks for.
#include <cmath>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/json.h"
#include "core/formats/hf_checkpoint.h"
#include "correctness/merge_testing.h"

namespace qshard {
namespace {

/// A model, and an adapter on its q_proj layers of rank 2, alpha 3, with random values; what else the adapter has is up
/// to the test.
class MergeOfOwnAdapter : public testing::Test {
 protected:
  explicit MergeOfOwnAdapter(const std::string& family = "llama_bias")
      : base_(HfCheckpoint::open(kGolden / "families" / family / "base")) {
    for (std::int64_t layer = 0; layer < base_.config().num_hidden_layers; ++layer) {
      const std::string module = fmt::format("model.layers.{}.self_attn.q_proj", layer);
      const Shape shape = base_.tensor(module + ".weight").shape;
      add(module + ".lora_A.weight", {2, shape[1]});
      add(module + ".lora_B.weight", {shape[0], 2});
    }
  }

  /// Random values that no 16-bit format holds.
  const Tensor& add(const std::string& name, const Shape& shape) {
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(random_);
    return tensors_["base_model.model." + name] = from_floats(values, DType::f32, shape);
  }

  void write() {
    Json config = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 3}, {"target_modules", {"q_proj"}}};
    config.update(options_);
    std::filesystem::create_directories(adapter());
    write_file(adapter() / "adapter_config.json", config.dump());
    std::vector<std::pair<std::string, TensorView>> views;
    for (const auto& [name, tensor] : tensors_) views.emplace_back(name, tensor.view());
    write_safetensors(adapter() / "adapter_model.safetensors", std::move(views));
  }

  [[nodiscard]] std::vector<std::string> merge() const {
    return {"merge", "--model", base_.directory(), "--adapter", adapter(), "--output", directory_ / "merged"};
  }

  HfCheckpoint merged() {
    write();
    run(directory_, merge());
    return HfCheckpoint::open(directory_ / "merged");
  }

  void expect_refused_merge(std::string_view text) {
    write();
    expect_refused(directory_, merge(), text);
  }

  [[nodiscard]] std::filesystem::path adapter() const { return directory_ / "adapter"; }
  [[nodiscard]] Tensor in_bf16(const std::string& name) const {
    const Tensor& tensor = tensors_.at("base_model.model." + name);
    return from_floats(to_floats(tensor.view()), DType::bf16, tensor.shape());
  }

  std::mt19937 random_{std::random_device{}()};
  TemporaryDirectory directory_;
  HfCheckpoint base_;
  NamedTensors tensors_;
  Json options_ = Json::object();
};

class MergeOntoTied : public MergeOfOwnAdapter {
 protected:
  MergeOntoTied() : MergeOfOwnAdapter("qwen2") {}

  [[nodiscard]] Shape table() const { return base_.tensor("model.embed_tokens.weight").shape; }
  [[nodiscard]] Json written_config() const {
    return parse_json(read_file(directory_ / "merged/config.json"), "config.json");
  }
};

TEST_F(MergeOfOwnAdapter, ABiasOfTheAdapterIsScaledAndAddedToTheLayersOwn) {
  options_ = {{"lora_bias", true}};
  for (int layer = 0; layer < 2; ++layer) {
    const std::string module = fmt::format("model.layers.{}.self_attn.q_proj", layer);
    add(module + ".lora_B.bias", base_.tensor(module + ".bias").shape);
  }
  const HfCheckpoint result = merged();
  for (const std::string& name : base_.names()) {
    const bool is_adapted = name.find("q_proj.") != std::string::npos;
    EXPECT_EQ(same_tensor(result.tensor(name), base_.tensor(name)), !is_adapted) << name;
    if (!is_adapted || !name.ends_with(".bias")) continue;
    std::vector<float> wanted = to_floats(base_.tensor(name));
    const std::string added = "base_model.model." + name.substr(0, name.size() - 4) + "lora_B.bias";
    const std::vector<float> values = to_floats(tensors_.at(added).view());
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += values[i] * 1.5F;  // alpha 3 / r 2
    const Tensor rounded = from_floats(wanted, DType::bf16, base_.tensor(name).shape);
    EXPECT_TRUE(same_tensor(result.tensor(name), rounded.view())) << name;
  }
}

TEST_F(MergeOfOwnAdapter, ABiasOfTheAdapterNeedsOneOfTheLayer) {
  const std::filesystem::path of = kGolden / "families/lora_bias";
  expect_refused(
      directory_,
      {"merge", "--model", of / "base", "--adapter", of / "adapter_final_fp32", "--output", directory_ / "merged"},
      "model.layers.0.mlp.down_proj, which has none in");
  EXPECT_FALSE(std::filesystem::exists(directory_ / "merged"));
}

TEST_F(MergeOfOwnAdapter, WhatItsKindAsksForMustBeThereAndNothingElse) {
  options_ = {{"use_dora", true}};
  expect_refused_merge("model.layers.0.self_attn.q_proj.lora_magnitude_vector\" is missing");
  options_ = {{"lora_bias", true}};
  expect_refused_merge("model.layers.0.self_attn.q_proj.lora_B.bias\" is missing");
  options_ = {{"modules_to_save", {"lm_head"}}};
  expect_refused_merge("modules_to_save has lm_head");
  options_ = Json::object();
  add("model.layers.1.self_attn.q_proj.lora_magnitude_vector",
      base_.tensor("model.layers.1.self_attn.q_proj.bias").shape);
  expect_refused_merge("model.layers.1.self_attn.q_proj.lora_magnitude_vector\" is there but should not be");
  tensors_.erase("base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector");
  add("lm_head.weight", {base_.config().vocab_size + 3, base_.config().hidden_size});
  expect_refused_merge(fmt::format("resize_token_embeddings({})", base_.config().vocab_size + 3));
  tensors_.erase("base_model.model.lm_head.weight");
  add("model.norm.weight", {base_.config().hidden_size});
  expect_refused_merge("model.norm.weight\" is no part of a LoRA adapter");
}

TEST_F(MergeOfOwnAdapter, TablesTrainedWholeOrSavedAlongReplaceTheBases) {
  const Shape table{base_.config().vocab_size, base_.config().hidden_size};
  options_ = {{"modules_to_save", {"embed_tokens"}}};
  add("model.embed_tokens.weight", table);
  add("lm_head.weight", table);  // saved along
  const HfCheckpoint result = merged();
  ASSERT_EQ(result.names(), base_.names());
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    EXPECT_TRUE(same_tensor(result.tensor(name), in_bf16(name).view())) << name;
  }
}

TEST_F(MergeOfOwnAdapter, AnAdaptedOutputHeadIsMergedOntoTheOneSavedWithIt) {
  const Shape table{base_.config().vocab_size, base_.config().hidden_size};
  options_ = {{"target_modules", {"q_proj", "lm_head"}}};
  const std::vector<float> head = to_floats(add("lm_head.base_layer.weight", table).view());
  const std::vector<float> a = to_floats(add("lm_head.lora_A.weight", {2, table[1]}).view());
  const std::vector<float> b = to_floats(add("lm_head.lora_B.weight", {table[0], 2}).view());
  const HfCheckpoint result = merged();
  const std::vector<float> got = to_floats(result.tensor("lm_head.weight"));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / table[1];
    const auto column = static_cast<std::int64_t>(i) % table[1];
    const double delta = 1.5 * (static_cast<double>(b[2 * row]) * a[column] +
                                static_cast<double>(b[2 * row + 1]) * a[table[1] + column]);
    // The saved head and the sum are rounded to bf16, whose unit is 2^-8 of a value.
    const double bound = 0x1p-8 * (std::abs(head[i]) + std::abs(head[i] + delta)) + 1e-5;
    ASSERT_NEAR(got[i], head[i] + delta, bound) << i;
  }
}

TEST_F(MergeOntoTied, ATableTrainedAloneUntiesThem) {
  options_ = {{"modules_to_save", {"embed_tokens"}}};
  add("model.embed_tokens.weight", table());
  const HfCheckpoint result = merged();
  EXPECT_EQ(written_config()["tie_word_embeddings"], false);
  EXPECT_EQ(result.names().size(), base_.names().size() + 1);
  EXPECT_TRUE(same_tensor(result.tensor("model.embed_tokens.weight"), in_bf16("model.embed_tokens.weight").view()));
  EXPECT_TRUE(same_tensor(result.tensor("lm_head.weight"), base_.tensor("model.embed_tokens.weight")));
}

TEST_F(MergeOntoTied, AHeadTrainedAloneUntiesThem) {
  options_ = {{"modules_to_save", {"lm_head"}}};
  add("lm_head.weight", table());
  const HfCheckpoint result = merged();
  EXPECT_EQ(written_config()["tie_word_embeddings"], false);
  EXPECT_TRUE(same_tensor(result.tensor("lm_head.weight"), in_bf16("lm_head.weight").view()));
  EXPECT_TRUE(same_tensor(result.tensor("model.embed_tokens.weight"), base_.tensor("model.embed_tokens.weight")));
}

TEST_F(MergeOntoTied, TablesThatAreEqualStayTied) {
  add("model.embed_tokens.weight", table());
  tensors_["base_model.model.lm_head.weight"] = tensors_.at("base_model.model.model.embed_tokens.weight");
  const HfCheckpoint result = merged();
  EXPECT_EQ(written_config()["tie_word_embeddings"], true);
  EXPECT_EQ(result.names(), base_.names());
  EXPECT_TRUE(same_tensor(result.tensor("model.embed_tokens.weight"), in_bf16("model.embed_tokens.weight").view()));
}

TEST_F(MergeOntoTied, AnAdapterOnTheTiedHeadIsRefused) {
  options_ = {{"target_modules", {"q_proj", "lm_head"}}};
  add("lm_head.lora_A.weight", {2, table()[1]});
  add("lm_head.lora_B.weight", {table()[0], 2});
  expect_refused_merge("the adapter changes lm_head, which config.json ties");
}

}  // namespace
}  // namespace qshard
