// lora.* keys of a run, from outside: beside an adapter that it starts from, and those that would do nothing.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "core/tensor/tensor.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

const std::filesystem::path kLlama = std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama";

class AdapterOptions : public testing::Test {
 protected:
  /// Plans a run with these options: exit code and output.
  std::pair<int, std::string> plan(std::vector<std::string> options) {
    write_file(directory_ / "run.yaml", fmt::format("model_name_or_path: {}\n", (kLlama / "base").string()));
    options.insert(options.begin(), {"plan", directory_ / "run.yaml"});
    RunningProgram program(std::move(options), directory_ / "log");
    const int code = program.wait();
    return {code, program.output()};
  }

  std::pair<int, std::string> plan_from(const std::string& adapter, std::vector<std::string> options) {
    options.insert(options.end(), {"--adapter_name_or_path", adapter});
    return plan(std::move(options));
  }

  void expect_refused(const std::pair<int, std::string>& result, std::initializer_list<std::string_view> texts) {
    EXPECT_EQ(result.first, 2) << result.second;
    for (const std::string_view text : texts) EXPECT_NE(result.second.find(text), std::string::npos) << result.second;
  }

  /// The golden adapter's configuration with other values.
  std::string adapter_with(const Json& changes) {
    Json config = parse_json(read_file(kLlama / "adapter_final_fp32/adapter_config.json"), "adapter_config.json");
    config.update(changes);
    std::filesystem::create_directories(directory_ / "adapter");
    write_file(directory_ / "adapter/adapter_config.json", config.dump());
    return directory_ / "adapter";
  }

  TemporaryDirectory directory_;
};

TEST_F(AdapterOptions, WhatAnAdapterContradictsIsRefusedByName) {
  const std::string adapter = kLlama / "adapter_final_fp32";
  const std::vector<std::pair<std::string, std::string>> others{
      {"r", "16"},
      {"lora_alpha", "8"},
      {"use_rslora", "true"},
      {"rank_pattern", "q_proj=4"},
      {"alpha_pattern", "q_proj=4"},
      {"use_dora", "true"},
      {"lora_bias", "true"},
      {"modules_to_save", "lm_head"},
      {"init_lora_weights", "gaussian"},
      {"target_modules", "[q_proj]"},
      {"exclude_modules", "q_proj"},
      {"layers_to_transform", "[1]"},
  };
  for (const auto& [key, value] : others) {
    expect_refused(plan_from(adapter, {"--lora." + key, value}),
                   {"lora." + key, "the adapter that the run starts from"});
  }
}

TEST_F(AdapterOptions, WhatSaysTheSameAsTheAdapterIsNoContradiction) {
  const std::vector<std::string> same{"--lora.r",
                                      "8",
                                      "--lora.lora_alpha",
                                      "16",
                                      "--lora.lora_dropout",
                                      "0.1",
                                      "--lora.target_modules",
                                      "all-linear",
                                      "--lora.use_dora",
                                      "false"};
  EXPECT_EQ(plan_from(kLlama / "adapter_final_fp32", same).first, 0);
  const std::string adapter = adapter_with(
      {{"target_modules", {"v_proj", "q_proj"}}, {"layers_to_transform", {1, 0}}, {"rank_pattern", {{"v_proj", 4}}}});
  EXPECT_EQ(plan_from(adapter, {"--lora.target_modules", "[q_proj, v_proj]", "--lora.rank_pattern", "v_proj=4"}).first,
            0);
  expect_refused(plan_from(adapter, {"--lora.rank_pattern", "v_proj=5"}), {"lora.rank_pattern", R"({"v_proj":4})"});
  EXPECT_EQ(plan_from(adapter_with({{"modules_to_save", {"lm_head", "embed_tokens"}}}),
                      {"--lora.modules_to_save", "[embed_tokens, lm_head]"})
                .first,
            0);
}

TEST_F(AdapterOptions, TablesThatWereSavedAlongAreNotTrainedOn) {
  const std::filesystem::path of = std::filesystem::path(QSHARD_GOLDEN_DIR) / "families/embedding_head_trained";
  std::filesystem::copy(of / "adapter_final_fp32", directory_ / "adapter");
  Json config = parse_json(read_file(directory_ / "adapter/adapter_config.json"), "adapter_config.json");
  config["modules_to_save"] = {"lm_head"};
  write_file(directory_ / "adapter/adapter_config.json", config.dump());
  Tensor ids(DType::i32, {4});
  Tensor offsets(DType::i64, {2});
  offsets.as<std::int64_t>()[1] = 4;
  write_safetensors(directory_ / "rows.safetensors",
                    {{"input_ids", ids.view()}, {"labels", ids.view()}, {"offsets", offsets.view()}});
  const std::string text =
      "model_name_or_path: {}\nadapter_name_or_path: {}\ndevice: cpu\ndataset: {{path: {}}}\n"
      "training: {{output_dir: {}, max_steps: 1}}\n";
  write_file(directory_ / "run.yaml",
             fmt::format(fmt::runtime(text), (of / "base").string(), (directory_ / "adapter").string(),
                         (directory_ / "rows.safetensors").string(), (directory_ / "out").string()));
  RunningProgram program({"train", directory_ / "run.yaml"}, directory_ / "log");
  const int code = program.wait();
  expect_refused({code, program.output()}, {"adapter_name_or_path", "has embed_tokens along", "./qshard merge"});
}

TEST_F(AdapterOptions, WhatWouldDoNothingIsRefused) {
  expect_refused(plan({"--lora.target_modules", "[q_proj, lm_head]"}),
                 {"lora.target_modules", "lm_head", "mlp.up_proj"});
  expect_refused(plan({"--lora.exclude_modules", "qproj"}), {"lora.exclude_modules", "qproj"});
  expect_refused(plan({"--lora.layers_to_transform", "[1, 2]"}), {"lora.layers_to_transform", "2 is beyond", "1"});
  expect_refused(plan({"--lora.target_modules", "[q_proj]", "--lora.rank_pattern", "up_proj=4"}),
                 {"lora.rank_pattern", "up_proj=4"});
  expect_refused(plan({"--lora.alpha_pattern", "wq=4"}), {"lora.alpha_pattern", "wq=4"});
  EXPECT_EQ(plan({"--lora.target_modules", "[q_proj, mlp.up_proj]", "--lora.layers_to_transform", "[1]",
                  "--lora.rank_pattern", "up_proj=4", "--lora.exclude_modules", "model.layers.0.self_attn.q_proj"})
                .first,
            0);
}

}  // namespace
}  // namespace qshard
