// qshard generate, from outside, on the embedded example, whose tokens are bytes: what is on standard output.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/formats/hf_checkpoint.h"
#include "core/training/sampling.h"
#include "correctness/golden_llama.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"
#include "reference/sharded_engine.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kModel = fs::path(QSHARD_SOURCE_DIR) / "examples/adverbs/model";
constexpr std::int32_t kBeginOfText = 256;
constexpr std::int64_t kNewTokens = 30;

class Generate : public testing::Test {
 protected:
  /// Standard output alone.
  std::string run(const fs::path& model, const std::vector<std::string>& arguments, int code = 0) {
    std::vector<std::string> words{"generate", "--model",          model,
                                   "--dtype",  "float32",          "--quantization.load_in_4bit",
                                   "false",    "--max-new-tokens", std::to_string(kNewTokens)};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const std::string python = std::string(QSHARD_SOURCE_DIR) + "/.venv/bin/python";
    RunningProgram program(words, directory_ / "log", {{"QSHARD_PYTHON", python}},
                           {"sh", "-c", "exec \"$@\" 2>" + (directory_ / "notes").string(), "sh"});
    EXPECT_EQ(program.wait(), code) << read_file(directory_ / "notes");
    return program.output();
  }

  [[nodiscard]] std::string notes() const { return read_file(directory_ / "notes"); }

  TemporaryDirectory directory_;
};

/// The greedy continuation, each token from a whole row of its own.
std::string continuation(const std::string& prompt) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(kModel);
  EngineOptions options = golden_options(DType::f32);
  options.quantization.load_in_4bit = false;
  const auto engine = reference::make_sharded_engine(checkpoint, options);
  const auto decoder = engine->make_decoder(1, 200);
  std::vector<std::int32_t> row{kBeginOfText};
  for (const char c : prompt) row.push_back(static_cast<unsigned char>(c));
  std::string text;
  for (std::int64_t i = 0; i < kNewTokens; ++i) {
    const std::int32_t token = greedy_token(decoder->start(std::span(&row, 1)).row(0));
    if (token >= kBeginOfText) break;
    text += static_cast<char>(token);
    row.push_back(token);
  }
  return text;
}

TEST_F(Generate, AnswersAloneAreOnStandardOutputInTheOrderOfThePrompts) {
  const std::string first = continuation("The quick brown");
  const std::string second = continuation("And God");
  ASSERT_GT(second.size(), 12U);
  const std::string stop = second.substr(8, 3);  // three tokens
  const auto until_stop = [&](const std::string& text) { return text.substr(0, text.find(stop)); };
  write_file(directory_ / "prompts.txt", "The quick brown\r\n\nAnd God\n");
  EXPECT_EQ(run(kModel, {"--prompts", directory_ / "prompts.txt", "--batch-size", "2", "--stop", stop, "--stop", "@"}),
            until_stop(first) + "\n" + until_stop(second) + "\n");
  EXPECT_THAT(notes(), testing::AllOf(HasSubstr("prompt 2 of 2"), HasSubstr("And God"), HasSubstr("base model")));
}

TEST_F(Generate, AChatIsWhatTheTemplateRenders) {
  const fs::path model = directory_ / "chat";
  fs::create_directory(model);
  for (const auto& entry : fs::directory_iterator(kModel)) {
    fs::create_symlink(entry.path(), model / entry.path().filename());
  }
  write_file(model / "chat_template.jinja",
             "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
             "{% if add_generation_prompt %}<assistant>{% endif %}");
  const std::string prompt = "<system>Be brief.<user>And God<assistant>";
  const Json answer = Json::parse(run(model, {"--prompt", "And God", "--chat", "--system", "Be brief.", "--json"}));
  EXPECT_EQ(answer.at("prompt"), "<s>" + prompt);
  EXPECT_EQ(answer.at("text"), continuation(prompt));
  EXPECT_EQ(answer.at("ended_by"), "length");
}

TEST_F(Generate, APromptsDrawsDoNotDependOnTheOthers) {
  write_file(directory_ / "prompts.jsonl",
             "{\"prompt\": \"And\"}\n{\"instruction\": \"Define.\"}\n{\"prompt\": \"The quick\"}\n");
  const std::vector<std::string> draws{"--temperature", "1.2", "--top-p", "0.8", "--json"};
  const auto with = [&](std::vector<std::string> words) {
    words.insert(words.end(), draws.begin(), draws.end());
    return run(kModel, words);
  };
  const std::string all = with({"--prompts", directory_ / "prompts.jsonl", "--seed", "5", "--batch-size", "2"});
  EXPECT_EQ(std::ranges::count(all, '\n'), 3);
  const std::string last = with({"--prompt", "The quick", "--seed", "7"});
  EXPECT_TRUE(all.ends_with(last)) << all << last;
  EXPECT_THAT(last, HasSubstr("\"tokens\":30"));
}

TEST_F(Generate, WhatCannotBeGeneratedIsRefused) {
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& reason) {
    EXPECT_EQ(run(kModel, arguments, 2), "");
    EXPECT_THAT(notes(), HasSubstr(reason));
  };
  refused({"--prompt", "a", "--top-p", "0"}, "--top-p 0: must be above 0");
  refused({"--prompt", "a", "--top-p", "nan"}, "--top-p nan");
  refused({"--prompt", "a", "--top-p", "0.5", "--temperature", "0"}, "--temperature 0 is greedy");
  refused({"--prompt", "a", "--instruction", "b"}, "--instruction");
  refused({"--prompt", "a", "--system", "b"}, "--chat");
  refused({"--prompt", "a", "--with-base"}, "--adapter");
  refused({"--prompt", std::string(2000, 'a')}, "prompt 1 has 2001 tokens");
}

}  // namespace
}  // namespace qshard
