// The built program from outside: its doors, its messages and its exit codes.
#include <algorithm>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/base/atomic_file.h"
#include "core/base/file_lock.h"
#include "core/formats/hf_checkpoint.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"
#include "correctness/tiny_run.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::MatchesRegex;

const std::string kBase = std::string(QSHARD_GOLDEN_DIR) + "/llama/base";
const std::string kQuantized = std::string(QSHARD_GOLDEN_DIR) + "/llama/bnb4bit";

class QshardProgram : public testing::Test {
 protected:
  int run(const std::vector<std::string>& arguments) {
    RunningProgram program(arguments, directory_ / "log");
    const int code = program.wait();
    output_ = program.output();
    return code;
  }

  void expect_bad(const std::vector<std::string>& arguments, const std::vector<std::string>& parts) {
    EXPECT_EQ(run(arguments), 2) << output_;
    for (const std::string& part : parts) EXPECT_THAT(output_, HasSubstr(part));
  }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ / name; }

  std::vector<std::string> training(std::int64_t steps) {
    write_file(path("train.yaml"), "lora: {r: 4, lora_alpha: 8}\n");
    write_random_dataset(path("data"), 12, 3);
    auto arguments = tiny_run_arguments(path("train.yaml"), path("data"), path("out"), steps);
    arguments.insert(arguments.end(), {"--dataset.format", "prepared"});
    return arguments;
  }

  TemporaryDirectory directory_;
  std::string output_;
};

TEST_F(QshardProgram, QuantizesADirectoryAsBitsandbytesDoesAndBack) {
  ASSERT_EQ(run({"quantize", "--model", kBase, "--output", path("q"), "--quant-storage", "bfloat16"}), 0) << output_;
  for (const auto* name : {"model.safetensors", "config.json"}) {
    EXPECT_EQ(read_file(path("q") + "/" + name), read_file(kQuantized + "/" + name)) << name;
  }
  EXPECT_TRUE(fs::exists(path("q") + "/generation_config.json"));
  ASSERT_EQ(run({"dequantize", "--model", path("q"), "--output", path("d")}), 0) << output_;
  EXPECT_EQ(read_file(path("d") + "/config.json"), read_file(kBase + "/config.json"));
  expect_bad({"quantize", "--model", path("q"), "--output", path("qq")}, {"already quantized"});
  expect_bad({"quantize", "--model", kBase, "--output", path("q")}, {"already there"});
  expect_bad({"dequantize", "--model", kBase, "--output", path("x")}, {"nothing to dequantize"});
}

TEST_F(QshardProgram, AConvertedDirectoryHasAnIndexAndEverythingButOtherWeights) {
  const std::string model = path("model");
  fs::create_directories(model + "/additional_chat_templates");
  fs::create_directories(model + "/original");
  const HfCheckpoint base = HfCheckpoint::open(kBase);
  // Each tensor in one of two files, with an index whose total is wrong, which changes nothing.
  std::vector<std::vector<std::pair<std::string, TensorView>>> parts(2);
  Json map = Json::object();
  for (std::size_t i = 0; i < base.names().size(); ++i) {
    const std::string& name = base.names()[i];
    parts[i % 2].emplace_back(name, base.tensor(name));
    map[name] = fmt::format("model-0000{}-of-00002.safetensors", i % 2 + 1);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    write_safetensors(fmt::format("{}/model-0000{}-of-00002.safetensors", model, i + 1), parts[i]);
  }
  write_file(model + "/model.safetensors.index.json",
             Json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
  write_file(model + "/config.json", base.config().text);
  const std::vector<std::string> kept{"tokenizer.json", "tokenizer.model", "chat_template.jinja",
                                      "generation_config.json", "additional_chat_templates/tools.jinja"};
  for (const std::string& name : kept) write_file(model + "/" + name, "of " + name);
  const std::vector<std::string> other_weights{"pytorch_model.bin", "model.gguf", "original/consolidated.00.pth",
                                               "consolidated.safetensors", "adapter_config.json"};
  for (const std::string& name : other_weights) write_file(model + "/" + name, "weights");

  ASSERT_EQ(run({"quantize", "--model", model, "--output", path("q"), "--quant-storage", "bfloat16"}), 0) << output_;
  const HfCheckpoint written = HfCheckpoint::open(path("q"));
  const HfCheckpoint wanted = HfCheckpoint::open(kQuantized);
  EXPECT_EQ(written.files().size(), 2U);
  ASSERT_EQ(written.names().size(), wanted.names().size());
  for (const std::string& name : wanted.names()) {
    EXPECT_TRUE(std::ranges::equal(written.tensor(name).bytes, wanted.tensor(name).bytes)) << name;
  }
  const Json index = Json::parse(read_file(path("q") + "/model.safetensors.index.json"));
  std::size_t bytes = 0;
  for (const std::string& name : wanted.names()) bytes += wanted.tensor(name).bytes.size();
  EXPECT_EQ(index.at("metadata").at("total_size"), bytes);
  for (const std::string& name : kept) EXPECT_EQ(read_file(path("q") + "/" + name), "of " + name);
  for (const std::string& name : other_weights) EXPECT_FALSE(fs::exists(path("q") + "/" + name)) << name;
}

TEST_F(QshardProgram, ATensorWithoutAPlaceIsNotQuantizedOver) {
  const HfCheckpoint base = HfCheckpoint::open(kBase);
  fs::create_directory(path("model"));
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (const std::string& name : base.names()) tensors.emplace_back("language_model." + name, base.tensor(name));
  write_safetensors(path("model") + "/model.safetensors", std::move(tensors));
  write_file(path("model") + "/config.json", base.config().text);
  expect_bad({"quantize", "--model", path("model"), "--output", path("q")}, {"lm_head.weight", "missing"});
}

TEST_F(QshardProgram, QuantizesEveryFloatingTensorOfAFile) {
  std::vector<Tensor> tensors{Tensor(DType::f32, {3, 5, 7}), Tensor(DType::i32, {4}), Tensor(DType::f16, {64})};
  tensors[0].as<float>()[100] = 2.0F;
  write_safetensors(path("a"), {{"odd", tensors[0].view()}, {"ints", tensors[1].view()}, {"half", tensors[2].view()}});
  ASSERT_EQ(run({"quantize", "--input", path("a"), "--output", path("b"), "--quant-type", "fp4", "--blocksize", "32"}),
            0)
      << output_;
  const SafetensorsFile quantized = SafetensorsFile::open(path("b"));
  EXPECT_EQ(quantized.tensor("odd").shape, (Shape{53, 1}));
  EXPECT_EQ(quantized.tensor("odd.absmax").shape, (Shape{4}));
  EXPECT_TRUE(quantized.contains("half.quant_state.bitsandbytes__fp4"));
  EXPECT_EQ(quantized.tensor("ints").dtype, DType::i32);

  // What is quantized already stays as it is.
  ASSERT_EQ(run({"quantize", "--input", path("b"), "--output", path("c")}), 0) << output_;
  EXPECT_EQ(read_file(path("c")), read_file(path("b")));
  ASSERT_EQ(run({"dequantize", "--input", path("b"), "--output", path("d")}), 0) << output_;
  const SafetensorsFile back = SafetensorsFile::open(path("d"));
  EXPECT_EQ(back.names().size(), 3U);
  EXPECT_EQ(back.tensor("odd").shape, (Shape{3, 5, 7}));
  EXPECT_EQ(to_floats(back.tensor("odd"))[100], 2.0F);
  EXPECT_EQ(back.tensor("half").dtype, DType::f16);
}

TEST_F(QshardProgram, RefusesWhatCannotBeQuantized) {
  const Tensor odd(DType::f32, {3});
  write_safetensors(path("a"), {{"odd", odd.view()}});
  const std::vector<std::string> door{"quantize", "--input", path("a"), "--output", path("b")};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), door.begin(), door.end());
    return more;
  };
  expect_bad(with({"--quant-storage", "float32"}), {"odd"});
  expect_bad(with({"--quant-storage", "int8"}), {"--quant-storage", "int8"});
  expect_bad(with({"--blocksize", "48"}), {"48"});
  expect_bad(with({"--quant-type", "int4"}), {"--quant-type", "int4"});
  EXPECT_FALSE(fs::exists(path("b")));
  write_file(path("a"), "short");
  expect_bad(door, {path("a")});
  expect_bad({"quantize", "--input", path("none"), "--output", path("b")}, {path("none")});
  EXPECT_FALSE(fs::exists(path("b")));
  write_file(path("b"), "kept");
  expect_bad(door, {path("b"), "already there"});
  EXPECT_EQ(read_file(path("b")), "kept");
}

TEST_F(QshardProgram, UsageErrorsSayWhatWasMeant) {
  expect_bad({}, {"subcommand"});
  expect_bad({"trian"}, {"trian", "train"});
  expect_bad({"train"}, {"CONFIG"});
  expect_bad({"train", path("none.yaml")}, {"none.yaml"});
  write_file(path("a.yaml"), "model_name_or_path: m\n");
  expect_bad({"train", path("a.yaml"), "--training.max_step", "5"}, {"did you mean \"training.max_steps\""});
  expect_bad({"train", path("a.yaml"), "--training.max_steps", "x"}, {"command line: training.max_steps", "integer"});
  EXPECT_EQ(run({"--help"}), 0);
  for (const auto* command : {"train", "eval", "generate", "plan", "quantize", "dequantize"}) {
    EXPECT_EQ(run({command, "--help"}), 0);
    EXPECT_THAT(output_, HasSubstr("--help"));
  }
}

TEST_F(QshardProgram, TrainsEvaluatesAndPlans) {
  const auto arguments = training(3);
  ASSERT_EQ(run(arguments), 0) << output_;
  for (const auto* part : {"trainable parameters", "step 3/3", "Evaluation after", "qshard generate --model"}) {
    EXPECT_THAT(output_, HasSubstr(part));
  }
  EXPECT_TRUE(fs::exists(path("out") + "/adapter_config.json"));
  const auto rows = timeless_metrics(path("out") + "/metrics.jsonl");
  ASSERT_EQ(rows.size(), 5U);
  const Json context = metrics_context(path("out") + "/metrics.jsonl");
  EXPECT_THAT(context["command"].get<std::string>(), HasSubstr("qshard train " + arguments[1]));
  EXPECT_THAT(context["command"].get<std::string>(), HasSubstr("--training.max_steps 3"));
  EXPECT_THAT(context["date"].get<std::string>(), MatchesRegex("20..-..-..T..:..:..[+]00:00"));
  EXPECT_EQ(context["dtype"], "bfloat16");
  EXPECT_EQ(context["seed"], 42);
  EXPECT_EQ(context["world_size"], 2);
  EXPECT_FALSE(context["device"].get<std::string>().empty());
  EXPECT_FALSE(context["version"].get<std::string>().empty());

  auto evaluation = arguments;
  evaluation[0] = "eval";
  evaluation.insert(evaluation.end(), {"--adapter", path("out")});
  ASSERT_EQ(run(evaluation), 0) << output_;
  EXPECT_THAT(output_, HasSubstr(fmt::format("{:.6f}", rows.back()["eval_loss"].get<double>())));
  auto plan = arguments;
  plan[0] = "plan";
  ASSERT_EQ(run(plan), 0) << output_;
  EXPECT_THAT(output_, HasSubstr("FULL_SHARD over 2 ranks"));

  expect_bad(arguments, {"holds an earlier run"});
  auto from_adapter = training(1);
  from_adapter.insert(from_adapter.end(),
                      {"--adapter_name_or_path", path("out"), "--training.output_dir", path("out2")});
  ASSERT_EQ(run(from_adapter), 0) << output_;
  const auto continued = timeless_metrics(path("out2") + "/metrics.jsonl");
  EXPECT_EQ(continued.front()["eval_loss"], rows.back()["eval_loss"]);
}

TEST_F(QshardProgram, ASavedAdapterHasATokenizerAndABaseThatOthersFind) {
  fs::copy(kBase, path("model"));
  write_file(path("model") + "/tokenizer.json", "{\"a\": 1}");
  write_file(path("model") + "/chat_template.jinja", "{{ messages }}");
  auto arguments = training(1);
  const std::string roundabout = path("model") + "/../model/";
  arguments.insert(arguments.end(), {"--model_name_or_path", roundabout, "--lora.init_lora_weights", "gaussian"});
  ASSERT_EQ(run(arguments), 0) << output_;
  const auto saved_config = [&](const std::string& output) {
    return parse_json(read_file(path(output) + "/adapter_config.json"), output);
  };
  for (const auto* directory : {"out", "out/checkpoint-1"}) {
    EXPECT_EQ(saved_config(directory)["base_model_name_or_path"], path("model")) << directory;
    EXPECT_EQ(saved_config(directory)["init_lora_weights"], "gaussian") << directory;
    EXPECT_EQ(read_file(path(directory) + "/tokenizer.json"), "{\"a\": 1}") << directory;
    EXPECT_EQ(read_file(path(directory) + "/chat_template.jinja"), "{{ messages }}") << directory;
  }

  Json config = saved_config("out");
  config["base_model_name_or_path"] = "someone/a-model";
  write_file(path("out") + "/adapter_config.json", config.dump());
  arguments.insert(arguments.end(), {"--adapter_name_or_path", path("out"), "--training.output_dir", path("out2")});
  ASSERT_EQ(run(arguments), 0) << output_;
  EXPECT_EQ(saved_config("out2")["base_model_name_or_path"], "someone/a-model");
}

TEST_F(QshardProgram, PlanWritesWhatEachRankHoldsForReports) {
  const std::string folder = std::string(QSHARD_SOURCE_DIR) + "/examples/llama-2-70b";
  const std::string example = folder + "/train.yaml";
  ASSERT_EQ(
      run({"plan", example, "--model_name_or_path", folder, "--fsdp.world_size", "2", "--json", path("plan.json")}), 0)
      << output_;
  const auto plan = nlohmann::json::parse(read_file(path("plan.json")));
  EXPECT_EQ(plan.at("name"), "llama-2-70b");
  EXPECT_EQ(plan.at("world_size"), 2);
  ASSERT_EQ(plan.at("ranks").size(), 2U);
  for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(plan.at("ranks").at(rank).at("rank"), rank);
  // 80 layers of 4-bit weights, half of them on each rank, by hand: q and o 8192 x 8192, k and v 1024 x 8192, gate, up
  // and down 28672 x 8192.
  const auto& bytes = plan.at("ranks").at(0).at("bytes");
  const double codes = 80.0 * (2.0 * 8192 * 8192 + 2.0 * 1024 * 8192 + 3.0 * 28672 * 8192) / 2;
  EXPECT_NEAR(bytes.at("codes").get<double>(), codes / 2, 1e-3 * codes);
  EXPECT_GT(bytes.at("gather_buffer").get<double>(), 0.0);
  EXPECT_EQ(bytes.at("optimizer").get<double>(), 2 * bytes.at("lora").get<double>());
  const auto& step = plan.at("step");
  EXPECT_EQ(step.at("gpu"), "h100");
  double sum = 0;
  for (const auto& part : step.at("parts")) sum += part.get<double>();
  EXPECT_NEAR(sum, step.at("seconds").get<double>(), 1e-9);
  EXPECT_EQ(std::ranges::count(step.at("timeline"), "backward", [](const auto& of) { return of.at("what"); }), 80);
  ASSERT_EQ(run({"plan", example, "--model_name_or_path", folder, "--gpu", "rtx4090", "--peer-rate", "3"}), 0);
  EXPECT_THAT(output_, testing::AllOf(HasSubstr("rtx4090 over pcie4"), HasSubstr("3 GB/s from peers")));
  expect_bad({"plan", example, "--model_name_or_path", folder, "--gpu", "rtx4091"}, {"rtx4091", "rtx4090"});
  EXPECT_NE(run({"plan", example, "--model_name_or_path", folder, "--json", path("nowhere") + "/x/plan.json"}), 0);
  EXPECT_THAT(output_, HasSubstr("nowhere"));
}

// In a build without CUDA no memory of GPUs is planned.
TEST_F(QshardProgram, PlanSaysWhatABudgetOrAGpuDoesNotHold) {
  const std::string folder = std::string(QSHARD_SOURCE_DIR) + "/examples/llama-2-70b";
  const std::vector<std::string> plan{"plan", folder + "/train.yaml", "--model_name_or_path", folder};
  const auto with = [&](const char* key, const char* value) {
    std::vector<std::string> arguments = plan;
    arguments.insert(arguments.end(), {key, value});
    return run(arguments);
  };
  ASSERT_EQ(run(plan), 0) << output_;
  const bool has_memory = output_.find("GPU memory") != std::string::npos;
  EXPECT_EQ(with("--training.memory_budget_gib", "8"), has_memory ? 3 : 0);
  if (has_memory) {
    EXPECT_THAT(output_, testing::AllOf(HasSubstr("8.0 GiB are too little, by "),
                                        HasSubstr("fsdp.fsdp_offload_params: true saves ")));
  }
  const bool has_gpu = fs::exists("/dev/nvidia0");
  EXPECT_EQ(with("--lora.r", "300"), has_gpu ? 2 : 0) << output_;
  if (has_memory) {
    EXPECT_THAT(output_, HasSubstr("lora.r is 300, but on GPUs it is at most 256"));
  }
}

TEST_F(QshardProgram, AnOutputDirectoryInUseIsLeftAlone) {
  fs::create_directory(path("out"));
  const auto lock = FileLock::try_take(path("out") + "/.lock");
  write_file(path("out") + "/metrics.jsonl", "another run's\n");
  auto arguments = training(3);
  arguments.insert(arguments.end(), {"--training.overwrite_output_dir", "true"});
  expect_bad(arguments, {"another process", path("out") + "/.lock"});
  EXPECT_EQ(read_file(path("out") + "/metrics.jsonl"), "another run's\n");
}

TEST_F(QshardProgram, BadDataEndsBeforeTraining) {
  auto arguments = training(3);
  Tensor ids(DType::i32, {2});
  ids.as<std::int32_t>()[1] = 512;
  Tensor offsets(DType::i64, {2});
  offsets.as<std::int64_t>()[1] = 2;
  write_safetensors(path("data"), {{"input_ids", ids.view()}, {"labels", ids.view()}, {"offsets", offsets.view()}});
  expect_bad(arguments, {"token 512", "row 0", "vocabulary of 512"});
  arguments.insert(arguments.end(), {"--model_name_or_path", path("nomodel")});
  expect_bad(arguments, {"nomodel"});
}

TEST_F(QshardProgram, DivergenceStopsWithTheStepAndTheLastCheckpoint) {
  auto arguments = training(30);
  arguments.insert(arguments.end(),
                   {"--training.fp16", "true", "--training.max_grad_norm", "0", "--training.learning_rate", "1e30"});
  EXPECT_EQ(run(arguments), 1) << output_;
  EXPECT_THAT(output_, HasSubstr("checkpoint-"));
  EXPECT_THAT(output_, HasSubstr("nothing was updated or saved"));
  EXPECT_FALSE(fs::exists(path("out") + "/adapter_model.safetensors"));
}

}  // namespace
}  // namespace qshard
