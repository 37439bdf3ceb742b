// Wrong words and options of every command: one line that says what is wrong, exit code 2, and nothing made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

using Words = std::vector<std::string>;

const Words kCommands{"train", "eval", "generate", "tokenize", "plan", "quantize", "dequantize", "merge"};

class Usage : public testing::Test {
 protected:
  Usage() {
    fs::create_directory(room());
    write_file(room() / "a.yaml", "model_name_or_path: " + kBase + "\n");
  }

  int run(const Words& words) {
    RunningProgram program(words, directory_ / "log", {},
                           {"sh", "-c", "cd '" + room().string() + "' && exec \"$0\" \"$@\""});
    const int code = program.wait();
    output_ = program.output();
    return code;
  }

  void expect_one_line(const Words& words, const std::string& said) {
    std::string shown;
    for (const std::string& word : words) shown += word + " ";
    EXPECT_EQ(run(words), 2) << shown << output_;
    EXPECT_THAT(output_, AllOf(StartsWith("qshard: error: "), HasSubstr(said))) << shown;
    EXPECT_EQ(output_.find('\n'), output_.size() - 1) << shown << output_;
    for (const auto& entry : fs::directory_iterator(room())) {
      EXPECT_EQ(entry.path().filename(), "a.yaml") << shown << "made it";
    }
  }

  [[nodiscard]] fs::path room() const { return directory_ / "room"; }

  const std::string kLlama = std::string(QSHARD_GOLDEN_DIR) + "/llama";
  const std::string kBase = kLlama + "/base";
  TemporaryDirectory directory_;
  std::string output_;
};

TEST_F(Usage, WordsThatNoCommandKnows) {
  for (const std::string& command : kCommands) {
    for (const Words& more : {Words{}, Words{"--nope"}, Words{"-x"}, Words{"a", "b", "c"}}) {
      Words words{command};
      words.insert(words.end(), more.begin(), more.end());
      expect_one_line(words, "see qshard " + command + " --help");
    }
  }
  expect_one_line({}, "see qshard --help");
  expect_one_line({"--nope"}, "see qshard --help");
  expect_one_line({"trian"}, "trian: unknown command (did you mean \"train\"?)");
  expect_one_line({"plan", "a.yaml", "--training.max_step", "3"}, "(did you mean \"training.max_steps\"?); see");
}

TEST_F(Usage, HelpOfEveryCommand) {
  ASSERT_EQ(run({"--help"}), 0);
  for (const std::string& command : kCommands) EXPECT_THAT(output_, HasSubstr("  " + command + " "));
  for (const std::string& command : kCommands) {
    for (const char* option : {"--help", "-h"}) {
      EXPECT_EQ(run({command, option}), 0);
      EXPECT_THAT(output_, HasSubstr("--help"));
    }
  }
}

TEST_F(Usage, ValuesThatCannotBe) {
  const Words quantize{"quantize", "--input", kBase + "/model.safetensors", "--output", "c"};
  const Words merge{"merge", "--model", kBase, "--adapter", kLlama + "/adapter_final_fp32", "--output", "c"};
  const auto with = [](Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  for (const Words& conversion : {quantize, merge}) {  // whether or not merge quantizes
    expect_one_line(with(conversion, {"--blocksize", "63"}), "--blocksize: 63");
    expect_one_line(with(conversion, {"--blocksize", "x"}), "--blocksize");
    expect_one_line(with(conversion, {"--quant-type", "int4"}), "--quant-type");
    expect_one_line(with(conversion, {"--quant-storage", "int8"}), "--quant-storage");
  }
  expect_one_line(with(merge, {"--base", "8bit"}), "--base: 8bit");
  expect_one_line(with(merge, {"--check", "none.txt"}), "tokenizer");
  expect_one_line(with(merge, {"--check", "none.safetensors"}), "none.safetensors");
  expect_one_line({"dequantize", "--input", kBase + "/model.safetensors", "--output", "c", "--dtype", "int8"}, "int8");
  expect_one_line({"quantize", "--input", "a", "--model", "b", "--output", "c"}, "--input,--model");
  expect_one_line({"train", "a.yaml"}, "dataset.path is missing");
  expect_one_line({"train", "a.yaml", "--gpus", "99"}, "dataset.path is missing");
  expect_one_line({"eval", "a.yaml"}, "dataset.eval_path is missing");
  expect_one_line({"train", "a.yaml", "--ranks", "0"}, "--ranks");
  expect_one_line({"plan", "a.yaml", "--json", ""}, "--json");
  expect_one_line(with(merge, {"--check", ""}), "--check");
  expect_one_line({"tokenize", "a.yaml", "--show", "-1"}, "--show");
  expect_one_line({"generate", "--model", kBase, "--prompt", "x", "--max-new-tokens", "0"}, "--max-new-tokens");
}

}  // namespace
}  // namespace qshard
