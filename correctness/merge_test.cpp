// qshard merge, from outside, against PEFT's merge_and_unload and against the way round by dequantize.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/base/json.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_checkpoint.h"
#include "correctness/merge_testing.h"
#include "correctness/tiny_run.h"

namespace qshard {
namespace {

// The merged weights of merged.safetensors are PEFT 0.21's, computed by torch on a CPU, whose sums run in the same
// order.
void expect_as_by_peft(const std::filesystem::path& of, const std::filesystem::path& model) {
  const TemporaryDirectory directory;
  run(directory, {"merge", "--model", model, "--adapter", of / "adapter_final_fp32", "--output", directory / "merged"});
  const HfCheckpoint base = HfCheckpoint::open(model);
  const HfCheckpoint merged = HfCheckpoint::open(directory / "merged");
  const SafetensorsFile peft = SafetensorsFile::open(of / "merged.safetensors");
  ASSERT_EQ(merged.names(), base.names());
  EXPECT_FALSE(peft.names().empty());
  for (const std::string& name : base.names()) {
    const bool is_adapted = name.ends_with("_proj.weight");
    EXPECT_EQ(same_tensor(merged.tensor(name), base.tensor(name)), !is_adapted) << name;
    if (!peft.contains(name)) continue;
    EXPECT_TRUE(same_tensor(merged.tensor(name), peft.tensor(name))) << name;
  }
}

TEST(Merge, OntoTheStoredWeightsItIsPeftsMergeAndUnload) {
  expect_as_by_peft(kGolden / "families/rslora_patterns", kGolden / "families/rslora_patterns/base");
}

// In float32, where the order of the sums shows.
TEST(Merge, DoraIsMergedAsByPeft) {
  const std::filesystem::path of = kGolden / "families/dora";
  const TemporaryDirectory model;
  std::filesystem::copy(of / "base/config.json", model.path());
  const HfCheckpoint base = HfCheckpoint::open(of / "base");
  NamedTensors tensors;
  std::vector<std::pair<std::string, TensorView>> views;
  for (const std::string& name : base.names()) {
    const TensorView stored = base.tensor(name);
    views.emplace_back(name, (tensors[name] = from_floats(to_floats(stored), DType::f32, stored.shape)).view());
  }
  write_safetensors(model / "model.safetensors", std::move(views));
  expect_as_by_peft(of, model.path());
}

TEST(Merge, OntoA4BitModelItIsOntoTheDequantizedOne) {
  const std::filesystem::path of = kGolden / "llama";
  const TemporaryDirectory directory;
  const std::string adapter = of / "adapter_final_fp32";
  run(directory, {"dequantize", "--model", of / "bnb4bit", "--output", directory / "dense"});
  run(directory, {"merge", "--model", directory / "dense", "--adapter", adapter, "--output", directory / "a"});
  run(directory, {"merge", "--model", of / "bnb4bit", "--adapter", adapter, "--output", directory / "b"});
  run(directory,
      {"merge", "--model", of / "base", "--base", "4bit", "--adapter", adapter, "--output", directory / "c"});
  run(directory, {"merge", "--model", of / "base", "--adapter", adapter, "--output", directory / "d"});
  const HfCheckpoint expected = HfCheckpoint::open(directory / "a");
  EXPECT_EQ(expected.names().size(), 21U);
  for (const char* other : {"b", "c"}) {
    const HfCheckpoint merged = HfCheckpoint::open(directory / other);
    EXPECT_FALSE(merged.config().prequantized_4bit);
    EXPECT_EQ(merged.names().size(), expected.names().size());
    for (const std::string& name : expected.names()) {
      EXPECT_TRUE(same_tensor(merged.tensor(name), expected.tensor(name))) << other << ": " << name;
    }
  }
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_FALSE(same_tensor(HfCheckpoint::open(directory / "d").tensor(name), expected.tensor(name)));
}

/// A copy of a model whose family cannot be run.
void copy_as_other_family(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::copy(from, to);
  Json config = parse_json(read_file(from / "config.json"), "config.json");
  config["model_type"] = "phantom";
  write_file(to / "config.json", config.dump());
}

void expect_same_tensors(const HfCheckpoint& a, const HfCheckpoint& b) {
  ASSERT_EQ(a.names().size(), b.names().size());
  for (const std::string& name : a.names()) EXPECT_TRUE(same_tensor(a.tensor(name), b.tensor(name))) << name;
}

TEST(Merge, OfAnyFamilyItIsTheSameTensorByTensor) {
  const std::filesystem::path of = kGolden / "llama";
  const std::string adapter = of / "adapter_final_fp32";
  const TemporaryDirectory directory;
  for (const char* model : {"base", "bnb4bit"}) {
    const std::string name = model;
    copy_as_other_family(of / model, directory / (name + "-other"));
    run(directory, {"merge", "--model", of / model, "--adapter", adapter, "--output", directory / name});
    run(directory, {"merge", "--model", directory / (name + "-other"), "--adapter", adapter, "--output",
                    directory / (name + "-merged")});
    expect_same_tensors(HfCheckpoint::open(directory / name),
                        HfCheckpoint::open_any_family(directory / (name + "-merged")));
    const Json config = parse_json(read_file(directory / (name + "-merged") / "config.json"), "config.json");
    EXPECT_EQ(config.at("model_type"), "phantom");
    EXPECT_FALSE(config.contains("quantization_config"));
  }
}

TEST(Merge, OfAnyFamilyWhatDoesNotFitIsRefused) {
  const std::filesystem::path of = kGolden / "llama";
  const TemporaryDirectory directory;
  copy_as_other_family(of / "base", directory / "other");
  std::filesystem::copy(of / "adapter_final_fp32", directory / "adapter");
  const SafetensorsFile file = SafetensorsFile::open(of / "adapter_final_fp32/adapter_model.safetensors");
  const auto with = [&](const std::string& left_out, const std::string& added, const Shape& shape) {
    std::vector<std::pair<std::string, TensorView>> tensors;
    const Tensor more(DType::f32, shape);
    for (const std::string& name : file.names()) {
      if (name.find(left_out) == std::string::npos) tensors.emplace_back(name, file.tensor(name));
    }
    if (!added.empty()) tensors.emplace_back(added, more.view());
    write_safetensors(directory / "adapter/adapter_model.safetensors", std::move(tensors));
  };
  const std::vector<std::string> merge{
      "merge", "--model", directory / "other", "--adapter", directory / "adapter", "--output", directory / "merged"};
  const std::string module = "base_model.model.model.layers.0.mlp.up_proj.";
  with("none", "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", {8, 256});
  expect_refused(directory, merge, "no tensor \"model.layers.9.mlp.up_proj.weight\"");
  with("none", module + "lora_magnitude_vector", {688});
  expect_refused(directory, merge, "lora_magnitude_vector\" is there but should not be");
  with(module + "lora_B", "", {});
  expect_refused(directory, merge, module + "lora_B.weight");
  with(module + "lora_A", module + "lora_A.weight", {8, 255});
  expect_refused(directory, merge, "do not fit");
  with("none", "", {});
  auto in_4_bits = merge;
  in_4_bits.insert(in_4_bits.end(), {"--write", "4bit"});
  expect_refused(directory, in_4_bits, "\"phantom\"");
  EXPECT_FALSE(std::filesystem::exists(directory / "merged"));
}

TEST(Merge, QuantizedAgainItIsTheMergedModelQuantized) {
  const std::filesystem::path of = kGolden / "llama";
  const std::string adapter = of / "adapter_final_fp32";
  const TemporaryDirectory directory;
  run(directory, {"merge", "--model", of / "bnb4bit", "--adapter", adapter, "--output", directory / "a"});
  run(directory, {"quantize", "--model", directory / "a", "--output", directory / "b", "--quant-storage", "bfloat16"});
  run(directory,
      {"merge", "--model", of / "bnb4bit", "--adapter", adapter, "--write", "4bit", "--output", directory / "c"});
  run(directory, {"merge", "--model", of / "base", "--base", "4bit", "--adapter", adapter, "--write", "4bit",
                  "--quant-storage", "bfloat16", "--output", directory / "d"});
  const HfCheckpoint wanted = HfCheckpoint::open(directory / "b");
  for (const char* other : {"c", "d"}) {
    const HfCheckpoint merged = HfCheckpoint::open(directory / other);
    EXPECT_TRUE(merged.config().prequantized_4bit);
    expect_same_tensors(wanted, merged);
  }
}

TEST(Merge, WhatTheAdapterLeavesAloneIsNotQuantizedTwice) {
  const std::filesystem::path of = kGolden / "llama";
  const TemporaryDirectory directory;
  std::filesystem::copy(of / "adapter_final_fp32", directory / "adapter");
  const SafetensorsFile file = SafetensorsFile::open(of / "adapter_final_fp32/adapter_model.safetensors");
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (const std::string& name : file.names()) {
    if (name.find("up_proj") != std::string::npos) tensors.emplace_back(name, file.tensor(name));
  }
  write_safetensors(directory / "adapter/adapter_model.safetensors", std::move(tensors));
  Json config = parse_json(read_file(directory / "adapter/adapter_config.json"), "adapter_config.json");
  config["target_modules"] = {"up_proj"};
  write_file(directory / "adapter/adapter_config.json", config.dump());
  run(directory, {"merge", "--model", of / "bnb4bit", "--adapter", directory / "adapter", "--write", "4bit", "--output",
                  directory / "merged"});
  const HfCheckpoint base = HfCheckpoint::open(of / "bnb4bit");
  const HfCheckpoint merged = HfCheckpoint::open(directory / "merged");
  ASSERT_EQ(merged.names().size(), base.names().size());
  for (const std::string& name : base.names()) {
    const bool is_target = name.ends_with("up_proj.weight");
    if (is_target || name.find("up_proj") == std::string::npos) {
      EXPECT_EQ(same_tensor(merged.tensor(name), base.tensor(name)), !is_target) << name;
    }
  }
}

/// The number behind `key` in the line that has `line` in it.
double number_in(const std::string& output, const std::string& line, const std::string& key) {
  const std::size_t begin = output.find(line);
  const std::size_t at = begin == std::string::npos ? begin : output.find(key, begin);
  EXPECT_NE(at, std::string::npos) << output;
  return at == std::string::npos ? NAN : std::stod(output.substr(at + key.size()));
}

TEST(Merge, TheCheckSaysWhichBaseTheMergedModelIsNearerTo) {
  const std::filesystem::path of = kGolden / "llama";
  const TemporaryDirectory directory;
  write_random_dataset(directory / "rows.safetensors", 3, 5);
  for (const std::string base : {"16bit", "4bit"}) {
    const std::filesystem::path log = directory / ("log" + base);
    RunningProgram program({"merge", "--model", of / "base", "--adapter", of / "adapter_final_fp32", "--base", base,
                            "--output", directory / base, "--check", directory / "rows.safetensors"},
                           log);
    ASSERT_EQ(program.wait(), 0) << program.output();
    const std::string output = program.output();
    for (const char* key : {"largest change ", "mean "}) {
      const double stored = number_in(output, "against the stored weights", key);
      const double in_4_bits = number_in(output, "against their 4-bit form", key);
      EXPECT_GT(std::min(stored, in_4_bits), 0) << output;
      // Rounding merged weights to bf16 is far less than rounding them to 4 bits.
      EXPECT_LT(3 * (base == "4bit" ? in_4_bits : stored), base == "4bit" ? stored : in_4_bits) << output;
    }
  }
}

TEST(Merge, WhatCannotBeMergedIsRefused) {
  const std::filesystem::path of = kGolden / "llama";
  const TemporaryDirectory directory;
  const std::string adapter = of / "adapter_final_fp32";
  const auto merge = [&](const std::filesystem::path& model, const std::string& base) {
    return std::vector<std::string>{"merge",    "--model",           model, "--base", base, "--adapter", adapter,
                                    "--output", directory / "merged"};
  };
  expect_refused(directory, merge(of / "bnb4bit", "16bit"), "holds its weights in 4 bits only");
  expect_refused(directory, merge(kGolden / "families/rslora_patterns/base", "auto"), "adapter_model.safetensors");
  EXPECT_FALSE(std::filesystem::exists(directory / "merged"));
}

}  // namespace
}  // namespace qshard
