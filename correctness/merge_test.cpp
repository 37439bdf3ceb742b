// qshard merge, from outside, against PEFT's merge_and_unload and against the way round by dequantize.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_checkpoint.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden(QSHARD_GOLDEN_DIR);

void run(const TemporaryDirectory& directory, std::vector<std::string> arguments) {
  RunningProgram program(std::move(arguments), directory / "log");
  ASSERT_EQ(program.wait(), 0) << program.output();
}

void expect_refused(const TemporaryDirectory& directory, std::vector<std::string> arguments, std::string_view text) {
  RunningProgram program(std::move(arguments), directory / "log");
  EXPECT_EQ(program.wait(), 2);
  EXPECT_NE(program.output().find(text), std::string::npos) << program.output();
}

bool same_tensor(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

// Neighbours among bf16 values differ by one in this order.
std::int32_t place_of(std::uint16_t bits) {
  return bits < 0x8000 ? bits : 0x8000 - static_cast<std::int32_t>(bits);
}

// The merged weights of merged.safetensors are PEFT 0.21's, computed by torch on a CPU, whose sums run in another
// order.
TEST(Merge, OntoTheStoredWeightsItIsPeftsMergeAndUnload) {
  const std::filesystem::path of = kGolden / "families/rslora_patterns";
  const TemporaryDirectory directory;
  run(directory,
      {"merge", "--model", of / "base", "--adapter", of / "adapter_final_fp32", "--output", directory / "merged"});
  const HfCheckpoint base = HfCheckpoint::open(of / "base");
  const HfCheckpoint merged = HfCheckpoint::open(directory / "merged");
  const SafetensorsFile peft = SafetensorsFile::open(of / "merged.safetensors");
  ASSERT_EQ(merged.names(), base.names());
  std::int64_t others = 0;
  std::int64_t elements = 0;
  for (const std::string& name : base.names()) {
    if (!peft.contains(name)) {
      EXPECT_TRUE(same_tensor(merged.tensor(name), base.tensor(name))) << name;
      continue;
    }
    EXPECT_FALSE(same_tensor(merged.tensor(name), base.tensor(name))) << name;
    const Tensor mine(merged.tensor(name));
    const Tensor golden(peft.tensor(name));
    ASSERT_EQ(mine.dtype(), DType::bf16);
    ASSERT_EQ(mine.shape(), golden.shape());
    for (std::size_t i = 0; i < mine.as<std::uint16_t>().size(); ++i) {
      const int apart = std::abs(place_of(mine.as<std::uint16_t>()[i]) - place_of(golden.as<std::uint16_t>()[i]));
      EXPECT_LE(apart, 1) << name << " " << i;
      others += apart != 0 ? 1 : 0;
      ++elements;
    }
  }
  EXPECT_GT(elements, 0);
  EXPECT_LE(others, elements / 1000) << "values that differ by one unit in the last place, of " << elements;
  RecordProperty("values one unit apart", std::to_string(others));
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
  for (const char* kind : {"dora", "lora_bias", "embedding_head_trained"}) {
    const std::filesystem::path family = kGolden / "families" / kind;
    expect_refused(directory,
                   {"merge", "--model", family / "base", "--adapter", family / "adapter_final_fp32", "--output",
                    directory / "merged"},
                   "are not merged here");
  }
  EXPECT_FALSE(std::filesystem::exists(directory / "merged"));
}

}  // namespace
}  // namespace qshard
