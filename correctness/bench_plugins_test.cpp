// `qshard bench --plugin X --check`: what it says of good plug-ins and how it refuses others, without a GPU.
#include <array>
#include <cstdio>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "bench/gpu/options.h"
#include "core/base/error.h"

namespace qshard {
namespace {

using testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string output;  // standard output and standard error
};

Outcome check(const std::string& arguments) {
  const std::string command = std::string(QSHARD_PLUGIN_CHECK) + " " + arguments + " 2>&1";
  Outcome outcome;
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer{};
  while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    outcome.output.append(buffer.data(), count);
  }
  const int status = ::pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

std::string plugin(const std::string& name) {
  return std::string(QSHARD_PLUGINS) + "/" + name + ".so";
}

TEST(BenchPlugins, AGoodOneIsToldRowByRow) {
  const Outcome outcome =
      check("--plugin " + plugin("plugin_good") + " --operation dequantize,linear4bit --shape 64x128 --rows 1,4");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("provider 'good', interface 2"));
  EXPECT_THAT(outcome.output,
              HasSubstr("takes     dequantize/n:64/k:128/blocksize:64/dtype:bf16/nested:1, workspace 64"));
  EXPECT_THAT(outcome.output,
              HasSubstr("left out  linear4bit/rows:4/n:64/k:128/blocksize:64/dtype:bf16/nested:1: deq"));
  EXPECT_THAT(outcome.output, HasSubstr("takes 1 of 3 rows; nothing was run"));
}

TEST(BenchPlugins, OneThatTakesNoRowIsNoSuccess) {
  const Outcome outcome = check("--plugin " + plugin("plugin_good") + " --operation quantize");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("takes no row of the table"));
}

TEST(BenchPlugins, OthersAreRefusedByFileAndReason) {
  const auto refused = [](const std::string& arguments, const std::string& reason) {
    const Outcome outcome = check(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(reason));
  };
  refused("--plugin " + plugin("plugin_abi"), "plugin_abi.so: abi is 7, this program has 2");
  refused("--plugin " + plugin("plugin_old"), "plugin_old.so: is made for version 1 of the interface");
  refused("--plugin " + plugin("plugin_other"), "plugin_other.so: does not export qshard_provider_v2");
  refused("--plugin " + plugin("plugin_space"), "its name 'two words' would break a row's name");
  refused("--plugin " + std::string(QSHARD_PLUGIN_CHECK), "cannot be loaded");
  refused("--plugin " + plugin("nowhere"), "nowhere.so");
  refused("", "give --plugin FILE");
  const std::string good = plugin("plugin_good");
  refused("--plugin " + good + "," + good, "has the name 'good' of");
}

TEST(BenchPlugins, ANameOfOnesOwnIsAProvider) {
  std::vector<std::string> arguments = {"bench", "--provider", "qshard,good", "--plugin", plugin("plugin_good")};
  EXPECT_THAT(bench::parse_options(arguments).value().providers, testing::ElementsAre("qshard", "good"));
  arguments = {"bench", "--provider", "qshart"};
  try {
    bench::parse_options(arguments);
    ADD_FAILURE() << "a provider that nobody knows was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--provider qshart: not known, did you mean qshard?"));
  }
}

}  // namespace
}  // namespace qshard
