#include "core/run/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/run/engine_options.h"
#include "core/run/foreign_options.h"
#include "core/run/run_options.h"
#include "core/sharding/sharding_strategy.h"
#include "correctness/expect_error.h"

namespace qshard {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& yaml, const Overrides& overrides = {}) {
  try {
    check_run_config(parse_run_config(yaml, "train.yaml", overrides));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_input);
    return error.what();
  }
  return "no error";
}

TEST(RunConfig, ReadsEverySectionAndRemembersThePlace) {
  const RunConfig config = parse_run_config(
      "model_name_or_path: models/a\n"
      "dtype: float32\n"
      "quantization:\n  bnb_4bit_quant_type: fp4\n  blocksize: 128\n"
      "lora:\n  r: 8\n  target_modules: [q_proj, v_proj]\n"
      "training:\n  learning_rate: 1e-3\n  eval_strategy: no\n  warmup_steps: 10\n"
      "fsdp:\n  fsdp_sharding_strategy: SHARD_GRAD_OP\n  world_size: 3\n"
      "dataset:\n  path: 'a b.jsonl'\n  shuffle: false\n",
      "train.yaml", {});
  EXPECT_EQ(config.model_name_or_path, "models/a");
  EXPECT_EQ(config.dtype, DType::f32);
  EXPECT_EQ(config.quantization.quant_type, QuantType::fp4);
  EXPECT_EQ(config.quantization.blocksize, 128);
  EXPECT_EQ(config.lora.r, 8);
  EXPECT_EQ(config.lora.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(config.training.learning_rate, 1e-3);
  EXPECT_EQ(config.training.eval_strategy, Interval::no);
  EXPECT_EQ(config.fsdp.fsdp_sharding_strategy, ShardingStrategy::shard_grad_op);
  EXPECT_EQ(config.rows_per_step(), 8 * 1 * 3);
  EXPECT_EQ(config.dataset.path, std::vector<std::string>{"a b.jsonl"});
  EXPECT_FALSE(config.dataset.shuffle);
  EXPECT_EQ(config.where("lora.r"), "train.yaml:7: lora.r");
}

TEST(RunConfig, OverridesWinAndAreNamedInErrors) {
  const Overrides overrides{{"training.max_steps", "5"}, {"lora.target_modules", "[q_proj, k_proj]"}};
  const RunConfig config = parse_run_config("training:\n  max_steps: 7\n", "train.yaml", overrides);
  EXPECT_EQ(config.training.max_steps, 5);
  EXPECT_EQ(config.lora.target_modules.size(), 2U);
  EXPECT_THAT(message_of("", {{"training.max_steps", "many"}}), HasSubstr("command line: training.max_steps"));
}

TEST(RunConfig, EveryOptionsDefaultReadsBackAsItself) {
  const RunConfig defaults;
  for (const RunOption& option : run_options()) {
    const std::string text = option.get(defaults);
    if (text == "\"\"") continue;
    const RunConfig config = parse_run_config("", "none", {{std::string(option.key), text}});
    EXPECT_EQ(option.get(config), text) << option.key;
    EXPECT_FALSE(option.doc.empty()) << option.key;
    EXPECT_TRUE(config.has(option.key)) << option.key;
  }
}

TEST(RunConfig, EveryAdviceNamesAnOptionThatIsThere) {
  for (const std::string_view name :
       {"max_seq_length", "lora_rank", "evaluation_strategy", "torch_dtype", "train_file"}) {
    const std::string advice(foreign_option_advice(name));
    const std::string mark = "here it is ";
    ASSERT_TRUE(advice.starts_with(mark)) << name;
    EXPECT_NE(find_run_option(advice.substr(mark.size())), nullptr) << advice;
  }
  for (const RunOption& option : run_options()) {
    const std::string key(option.key);
    EXPECT_EQ(foreign_option_advice(key.substr(key.rfind('.') + 1)), "") << "an own key is no foreign one: " << key;
  }
}

TEST(RunConfig, DataMayBeSeveralFilesWithOtherColumns) {
  const RunConfig config = parse_run_config(
      "dataset:\n  path: [a.jsonl, b.csv]\n  eval_path: c\n  columns: {prompt: question, completion: the answer}\n",
      "a", {});
  EXPECT_EQ(config.dataset.path, (std::vector<std::string>{"a.jsonl", "b.csv"}));
  EXPECT_EQ(config.dataset.eval_path, std::vector<std::string>{"c"});
  EXPECT_EQ(config.dataset.columns, (std::vector<std::string>{"prompt=question", "completion=the answer"}));
}

TEST(RunConfig, NullLeavesTheDefault) {
  const RunConfig config = parse_run_config("adapter_name_or_path: null\ntraining:\n  seed: ~\nlora:\n", "a", {});
  EXPECT_EQ(config.adapter_name_or_path, "");
  EXPECT_EQ(config.training.seed, 42);
}

struct BadConfig {
  std::string yaml;
  std::vector<std::string> expected;

  friend void PrintTo(const BadConfig& config, std::ostream* out) { *out << testing::PrintToString(config.expected); }
};

class RunConfigErrors : public testing::TestWithParam<BadConfig> {};

TEST_P(RunConfigErrors, NamePlaceAndRemedy) {
  const std::string message = message_of(GetParam().yaml);
  for (const std::string& part : GetParam().expected) EXPECT_THAT(message, HasSubstr(part));
}

const std::string kModel = "model_name_or_path: m\n";

INSTANTIATE_TEST_SUITE_P(
    All, RunConfigErrors,
    testing::Values(
        BadConfig{kModel + "training:\n  max_step: 5\n", {"train.yaml:3", "max_step", "training.max_steps"}},
        BadConfig{kModel + "trainings:\n  max_steps: 5\n", {"train.yaml:2", "unknown key"}},
        BadConfig{kModel + "max_steps: 5\n", {"train.yaml:2", "did you mean \"training.max_steps\""}},
        BadConfig{kModel + "training:\n  r: 5\n", {"did you mean \"lora.r\""}},
        BadConfig{kModel + "training:\n  max_seq_length: 5\n", {"train.yaml:3", "here it is training.max_length"}},
        BadConfig{kModel + "training:\n  optim: adamw_torch_8bit\n",
                  {"train.yaml:3", "adamw_torch_8bit", "bitsandbytes'"}},
        BadConfig{kModel + "training:\n  optim: lion_8bit\n", {"lion_8bit", "AdamW is the only optimizer"}},
        BadConfig{kModel + "training:\n  optim: adamw_9bit\n", {"adamw_9bit", "adamw_torch_fused | adamw_torch"}},
        BadConfig{kModel + "training:\n  optimizer: x\n", {"here it is training.optim"}},
        BadConfig{kModel + "training: {optim: adamw_8bit, optim_moments_dtype: float32}\n",
                  {"train.yaml:2", "optim_moments_dtype contradicts training.optim", "8-bit"}},
        BadConfig{kModel + "training: {optim: paged_adamw_32bit, optim_moments_dtype: bfloat16}\n",
                  {"contradicts", "float32"}},
        BadConfig{kModel + "lora: {lora_rank: 4}\n", {"here it is lora.r"}},
        BadConfig{kModel + "dataset:\n  columns: [prompt]\n", {"train.yaml:3", "NAME=VALUE"}},
        BadConfig{kModel + "lora: {rank_pattern: {q_proj: 0}}\n", {"rank_pattern", "1 to 4096"}},
        BadConfig{kModel + "lora: {layers_to_transform: [-1]}\n", {"layers_to_transform", "0 or more"}},
        BadConfig{kModel + "lora: {use_dora: true, lora_bias: true}\n", {"train.yaml:2", "lora_bias", "use_dora"}},
        BadConfig{kModel + "lora: {init_lora_weights: gaussian, lora_bias: true}\n", {"lora_bias", "gaussian"}},
        BadConfig{kModel + "lora: {modules_to_save: [lm_head, norm]}\n", {"modules_to_save", "norm", "embed_tokens"}},
        BadConfig{kModel + "lora: {init_lora_weights: pissa_niter_4}\n",
                  {"train.yaml:2", "init_lora_weights", "pissa_niter_4", "adapter_name_or_path"}},
        BadConfig{kModel + "lora: {init_lora_weights: false}\n", {"init_lora_weights", "true | gaussian"}},
        BadConfig{kModel + "training:\n  warmup_steps: 1.5\n", {"neither whole steps nor a share"}},
        BadConfig{kModel + "zzzzzzzzzzzz: 1\n", {"unknown key \"zzzzzzzzzzzz\""}},
        BadConfig{kModel + "training:\n  max_steps: many\n", {"train.yaml:3", "integer", "many"}},
        BadConfig{kModel + "training:\n  max_steps: 1.5\n", {"integer", "1.5"}},
        BadConfig{kModel + "training:\n  max_steps: [1]\n", {"train.yaml:3", "got a list"}},
        BadConfig{kModel + "training:\n  max_steps: {a: 1}\n", {"train.yaml:3", "got a section"}},
        BadConfig{kModel + "training:\n  max_steps: 99999999999999999999\n", {"integer"}},
        BadConfig{kModel + "training: 5\n", {"train.yaml:2", "unknown key \"training\""}},
        BadConfig{kModel + "training:\n  learning_rate: -1\n", {"learning_rate", "from 0"}},
        BadConfig{kModel + "training:\n  learning_rate: nan\n", {"learning_rate", "from 0"}},
        BadConfig{kModel + "training:\n  adam_beta1: 1\n", {"adam_beta1", "below 1"}},
        BadConfig{kModel + "training:\n  bf16: 1\n", {"true or false"}},
        BadConfig{kModel + "quantization:\n  blocksize: 48\n", {"48", "32 | 64"}},
        BadConfig{kModel + "quantization:\n  bnb_4bit_quant_type: int4\n", {"int4", "nf4 | fp4"}},
        BadConfig{kModel + "lora:\n  r: 0\n", {"train.yaml:3", "1 to 4096"}},
        BadConfig{kModel + "lora:\n  target_modules: []\n", {"empty"}},
        BadConfig{kModel + kModel, {"train.yaml:2", "given twice", "train.yaml:1"}},
        BadConfig{kModel + "a: [1\n", {"train.yaml:", "not valid YAML"}},
        BadConfig{"- 1\n", {"train.yaml", "expected keys and values"}},
        BadConfig{"", {"model_name_or_path is missing"}},
        BadConfig{kModel + "device: cpu\nfsdp:\n  fsdp_offload_params: true\n", {"train.yaml:4", "set it to false"}},
        BadConfig{kModel + "fsdp:\n  fsdp_offload_params: true\n  transport: nccl\n",
                  {"train.yaml:4", "nccl does not"}},
        BadConfig{kModel + "device: cpu\nfsdp:\n  transport: host\n", {"train.yaml:4", "leave it out"}},
        BadConfig{kModel + "fsdp:\n  fsdp_sharding_strategy: HYBRID_SHARD\n", {"train.yaml:3", "shard_group_size"}},
        BadConfig{kModel + "fsdp:\n  shard_group_size: 2\n", {"train.yaml:3", "leave it out"}},
        BadConfig{kModel + "fsdp:\n  transport: pcie\n", {"train.yaml:3", "auto | peer | nccl | host"}},
        BadConfig{kModel + "training:\n  bf16: true\n  fp16: true\n", {"exclude each other"}},
        BadConfig{kModel + "quantization: {bnb_4bit_compute_dtype: float32}\ntraining: {bf16: true}\n",
                  {"compute_dtype", "bf16"}},
        BadConfig{kModel + "training:\n  max_steps: 0\n", {"nothing would be trained"}},
        BadConfig{kModel + "training: {max_steps: 5, warmup_steps: 6}\n", {"warmup_steps (6)", "max_steps (5)"}},
        BadConfig{kModel + "training: {per_device_train_batch_size: 1000000, gradient_accumulation_steps: 1000000}\n",
                  {"1000000000000 rows"}},
        BadConfig{kModel + "training: {eval_strategy: steps}\n", {"dataset.eval_path"}}));

TEST(RunConfig, SavingsOfMemoryAreSwitchesOrAuto) {
  const auto with = [](const char* value) {
    return parse_run_config("", "train.yaml",
                            {{"training.gradient_checkpointing", value}, {"training.activation_offloading", value}});
  };
  EXPECT_EQ(parse_run_config("", "train.yaml", {}).training.gradient_checkpointing, MemorySaving::automatic);
  for (const auto& [value, meaning] :
       {std::pair{"auto", MemorySaving::automatic}, std::pair{"true", MemorySaving::always},
        std::pair{"false", MemorySaving::never}}) {
    EXPECT_EQ(with(value).training.gradient_checkpointing, meaning);
    EXPECT_EQ(with(value).training.activation_offloading, meaning);
  }
  EXPECT_THROW(with("sometimes"), Error);
  const RunConfig budget = parse_run_config("training: {memory_budget_gib: 23.5}", "train.yaml", {});
  EXPECT_EQ(engine_options(budget, DType::bf16).memory_budget, 25232932864);  // 23.5 * 2^30
}

TEST(RunConfig, MissingFileIsNamed) {
  expect_bad_input({"/nonexistent/train.yaml"}, [] { load_run_config("/nonexistent/train.yaml", {}); });
}

TEST(RunConfig, OptimizersByTheNamesThatUsersKnow) {
  const auto moments = [](const std::string& training) {
    const RunConfig config = parse_run_config(kModel + "training: {" + training + "}\n", "train.yaml", {});
    check_run_config(config);
    return engine_options(config, DType::bf16).optimizer.moments;
  };
  EXPECT_EQ(moments(""), MomentFormat::lora_dtype);
  for (const char* name : {"adamw_torch", "adamw_torch_fused"}) {
    EXPECT_EQ(moments(fmt::format("optim: {}", name)), MomentFormat::lora_dtype);
    EXPECT_EQ(moments(fmt::format("optim: {}, optim_moments_dtype: float32", name)), MomentFormat::float32);
    EXPECT_EQ(moments(fmt::format("optim: {}, optim_moments_dtype: bfloat16", name)), MomentFormat::bfloat16);
  }
  for (const char* name : {"adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"}) {
    EXPECT_EQ(moments(fmt::format("optim: {}", name)), MomentFormat::blockwise_8bit);
  }
  EXPECT_EQ(moments("optim: paged_adamw_32bit"), MomentFormat::float32);
  EXPECT_EQ(moments("optim: paged_adamw_32bit, optim_moments_dtype: float32"), MomentFormat::float32);
}

TEST(RunConfig, EngineOptionsTakeTheCheckpointsDtypeUnlessGiven) {
  RunConfig config;
  EXPECT_EQ(engine_options(config, DType::bf16).dtype, DType::bf16);
  config.dtype = DType::f32;
  config.training.bf16 = true;
  const EngineOptions options = engine_options(config, DType::bf16);
  EXPECT_EQ(options.dtype, DType::f32);
  EXPECT_EQ(options.compute_dtype, DType::bf16);
}

}  // namespace
}  // namespace qshard
