// Two processes that write the same new output at once: one wins, its result is whole, and the other says so.
#include <chrono>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/formats/safetensors.h"
#include "core/tensor/tensor.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kLlama = fs::path(QSHARD_GOLDEN_DIR) / "llama";

/// A command and the golden model that it converts; without one, a file.
struct Conversion {
  std::string command;
  std::string model;
};

std::ostream& operator<<(std::ostream& out, const Conversion& conversion) {
  return out << conversion.command << "_" << (conversion.model.empty() ? "file" : conversion.model);
}

class SameOutput : public testing::TestWithParam<Conversion> {
 protected:
  /// What is converted takes a while to write, so that a process is found while it does.
  SameOutput() {
    const auto& [command, model] = GetParam();
    if (model.empty()) {
      const Tensor large(DType::i32, {1 << 23});
      write_safetensors(directory_ / "file", {{"large", large.view()}});
      words_ = {command, "--input", directory_ / "file"};
    } else {
      fs::copy(kLlama / model, directory_ / "model");
      write_file(directory_ / "model/tokenizer.model", std::string(1 << 25, 't'));
      words_ = {command, "--model", directory_ / "model"};
    }
    if (command == "merge") words_.insert(words_.end(), {"--adapter", kLlama / "adapter_final_fp32"});
  }

  [[nodiscard]] RunningProgram start(const std::string& output, const std::string& log) const {
    std::vector<std::string> words = words_;
    words.insert(words.end(), {"--output", directory_ / output});
    return {words, directory_ / log};
  }

  /// Every file below, or the one file.
  [[nodiscard]] std::map<std::string, std::string> content(const std::string& output) const {
    const fs::path path = directory_ / output;
    std::map<std::string, std::string> files;
    if (fs::is_regular_file(path)) files["."] = read_file(path);
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(path, ignored)) {
      if (entry.is_regular_file()) files[fs::relative(entry.path(), path)] = read_file(entry.path());
    }
    return files;
  }

  [[nodiscard]] bool leaves_something() const {
    for (const auto& entry : fs::directory_iterator(directory_.path())) {
      if (entry.path().filename().string().find(".tmp-") != std::string::npos) return true;
    }
    return false;
  }

  TemporaryDirectory directory_;
  std::vector<std::string> words_;
};

TEST_P(SameOutput, TheOneThatIsLaterIsRefusedAndTheResultStays) {
  ASSERT_EQ(start("alone", "log").wait(), 0);
  RunningProgram late = start("out", "log of late");
  const fs::path half = directory_ / ("out.tmp-" + std::to_string(late.process()));
  while (late.running() && !fs::exists(half)) std::this_thread::sleep_for(std::chrono::microseconds(100));
  ::kill(late.process(), SIGSTOP);
  ASSERT_TRUE(late.running()) << "it had ended before it was stopped: " << late.output();

  RunningProgram first = start("out", "log of first");
  EXPECT_EQ(first.wait(), 0) << first.output();
  ::kill(late.process(), SIGCONT);
  EXPECT_EQ(late.wait(), 2) << late.output();
  EXPECT_THAT(late.output(), HasSubstr((directory_ / "out").string() + ": was written by another process meanwhile"));
  EXPECT_EQ(late.output().find("Wrote"), std::string::npos);
  EXPECT_EQ(content("out"), content("alone"));
  EXPECT_FALSE(leaves_something());
}

TEST_P(SameOutput, OfFourAtOnceOneWins) {
  ASSERT_EQ(start("alone", "log").wait(), 0);
  std::vector<std::unique_ptr<RunningProgram>> programs;
  programs.reserve(4);
  for (int i = 0; i < 4; ++i) programs.emplace_back(new RunningProgram(start("out", "log" + std::to_string(i))));
  std::multiset<int> codes;
  for (const auto& program : programs) codes.insert(program->wait());
  EXPECT_EQ(codes, (std::multiset<int>{0, 2, 2, 2}));
  EXPECT_EQ(content("out"), content("alone"));
  EXPECT_FALSE(leaves_something());
}

INSTANTIATE_TEST_SUITE_P(Commands, SameOutput,
                         testing::Values(Conversion{"quantize", "base"}, Conversion{"quantize", ""},
                                         Conversion{"dequantize", "bnb4bit"}, Conversion{"dequantize", ""},
                                         Conversion{"merge", "base"}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace qshard
