// Every plan-only example, planned by the built program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

struct Example {
  const char* name;
  int ranks;
  const char* codes;  // MiB a rank: half a byte for each weight of the linear layers, over the ranks
};

class ExamplesPlan : public testing::TestWithParam<Example> {};

TEST_P(ExamplesPlan, PrintsItsLayout) {
  const TemporaryDirectory directory;
  const std::string example = std::string(QSHARD_SOURCE_DIR) + "/examples/" + GetParam().name;
  RunningProgram program({"plan", example + "/train.yaml", "--model_name_or_path", example}, directory / "log");
  EXPECT_EQ(program.wait(), 0) << program.output();
  const std::string output = program.output();
  EXPECT_THAT(output, testing::HasSubstr("FULL_SHARD over " + std::to_string(GetParam().ranks) + " rank"));
  EXPECT_THAT(output, testing::HasSubstr(std::string("codes ") + GetParam().codes + ","));
}

INSTANTIATE_TEST_SUITE_P(All, ExamplesPlan,
                         testing::Values(Example{"llama-2-70b", 2, "16320.0"}, Example{"llama-3.1-8b", 1, "3328.0"},
                                         Example{"llama-3.1-70b", 2, "16320.0"}, Example{"mistral-7b", 1, "3328.0"},
                                         Example{"qwen2.5-7b", 1, "3111.5"}, Example{"qwen2.5-72b", 2, "16740.0"},
                                         Example{"qwen3-8b", 1, "3312.0"}, Example{"qwen3-32b", 2, "7440.0"}),
                         [](const auto& of) {
                           std::string name = of.param.name;
                           for (char& c : name) {
                             if (c == '-' || c == '.') c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace qshard
