// The built program where the system says no: full disks and outputs, odd files, signals, killed commands.
#include <chrono>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "core/base/atomic_file.h"
#include "core/training/training_checkpoint.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"
#include "correctness/tiny_run.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kBase = std::string(QSHARD_GOLDEN_DIR) + "/llama/base";

class ProgramLimits : public testing::Test {
 protected:
  ProgramLimits() {
    write_file(path("train.yaml"), "lora: {r: 4, lora_alpha: 8}\n");
    write_random_dataset(path("data.safetensors"), 12, 3);
  }

  /// Runs the program in a shell after `setup`, such as a limit; the program's words are "$0" "$@" there.
  int run_after(const std::string& setup, const std::vector<std::string>& arguments) {
    RunningProgram program(arguments, path("log"), {}, {"sh", "-c", setup + " \"$0\" \"$@\""});
    const int code = program.wait();
    output_ = program.output();
    return code;
  }

  [[nodiscard]] std::vector<std::string> training(std::int64_t steps) const {
    return tiny_run_arguments(path("train.yaml"), path("data.safetensors"), path("out"), steps);
  }
  [[nodiscard]] std::vector<std::string> quantizing(const std::string& output) const {
    return {"quantize", "--input", kBase + "/model.safetensors", "--output", path(output)};
  }
  [[nodiscard]] std::string path(const std::string& name) const { return directory_ / name; }

  void expect_no_temporary_file() const {
    for (const auto& entry : fs::recursive_directory_iterator(directory_.path())) {
      EXPECT_EQ(entry.path().filename().string().find(".tmp-"), std::string::npos) << entry.path();
    }
  }

  TemporaryDirectory directory_;
  std::string output_;
};

TEST_F(ProgramLimits, ALimitOnFileSizesIsExitCode3AndLeavesNothing) {
  EXPECT_EQ(run_after("ulimit -f 20; exec", quantizing("q")), 3) << output_;
  EXPECT_THAT(output_, HasSubstr(path("q")));
  EXPECT_EQ(run_after("ulimit -f 20; exec", training(4)), 3) << output_;
  EXPECT_THAT(output_, HasSubstr(path("out")));
  expect_no_temporary_file();
}

// Beginning where the program's libraries just fit: that depends on what it was built with.
TEST_F(ProgramLimits, TooLittleAddressSpaceForMemoryOrThreadsIsExitCode3) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer takes terabytes of address space for itself";
#endif
  const auto limit_of = [](int megabytes) {
    return fmt::format("ulimit -v {}; export OMP_NUM_THREADS=8; exec", megabytes * 1024);
  };
  int least = 8;
  while (run_after(limit_of(least), {"--version"}) != 0) least = least * 9 / 8;
  for (const int more : {0, 3, 6, 10, 16}) {
    const int megabytes = least + more;
    const std::string limit = limit_of(megabytes);
    for (const auto& arguments : {training(2), quantizing("q")}) {
      const int code = run_after(limit, arguments);
      EXPECT_TRUE(code == 0 || code == 3) << code << " with " << megabytes << " MB: " << output_;
      if (code == 0) continue;
      EXPECT_THAT(output_, HasSubstr("qshard: error: "));
      EXPECT_THAT(output_, HasSubstr("memory"));
      expect_no_temporary_file();
    }
    fs::remove_all(path("out"));
    fs::remove_all(path("q"));
  }
}

TEST_F(ProgramLimits, MoreThreadsThanAnyMachineHasAreRefused) {
#ifndef _OPENMP
  GTEST_SKIP() << "built without OpenMP";
#endif
  EXPECT_EQ(run_after("export OMP_NUM_THREADS=1000000; exec", training(2)), 2) << output_;
  EXPECT_THAT(output_, HasSubstr("OMP_NUM_THREADS"));
}

TEST_F(ProgramLimits, SizesBeyond64BitsAreRefused) {
  const auto plan = [&](const std::string& key, const std::string& value) {
    return std::vector<std::string>{
        "plan", path("train.yaml"), "--model_name_or_path", kBase, "--training.max_length", "2147483647", key, value};
  };
  EXPECT_EQ(run_after("exec", plan("--training.per_device_train_batch_size", "1048576")), 2);
  EXPECT_THAT(output_, HasSubstr("training.max_length"));
}

TEST_F(ProgramLimits, AFullStandardOutputIsExitCode3) {
  for (const auto& arguments : {training(2), quantizing("q"), std::vector<std::string>{"--help"},
                                std::vector<std::string>{"plan", path("train.yaml"), "--model_name_or_path", kBase}}) {
    EXPECT_EQ(run_after("exec >/dev/full;", arguments), 3) << arguments.front() << output_;
  }
}

TEST_F(ProgramLimits, ClosedDescriptorsGetNoFile) {
  ASSERT_EQ(run_after("exec <&- >&- 2>&-;", quantizing("closed")), 0);
  ASSERT_EQ(run_after("", quantizing("open")), 0) << output_;
  EXPECT_EQ(read_file(path("closed")), read_file(path("open")));
}

TEST_F(ProgramLimits, PipesAreNotReplaced) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(run_after("", quantizing("pipe")), 2) << output_;
  EXPECT_EQ(run_after("", {"plan", path("train.yaml"), "--model_name_or_path", kBase, "--json", path("pipe")}), 2);
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
}

TEST_F(ProgramLimits, WhatAKilledQuantizeLeftGoesWithTheNextOne) {
  write_file(path("q.tmp-999999999"), "half");
  write_file(path("p.tmp-999999999"), "not of this output");
  fs::create_directory(path("d.tmp-999999999"));
  ASSERT_EQ(run_after("", quantizing("q")), 0) << output_;
  ASSERT_EQ(run_after("", {"quantize", "--model", kBase, "--output", path("d")}), 0) << output_;
  EXPECT_FALSE(fs::exists(path("q.tmp-999999999")));
  EXPECT_FALSE(fs::exists(path("d.tmp-999999999")));
  EXPECT_TRUE(fs::exists(path("p.tmp-999999999")));
}

class StoppedProgram : public ProgramLimits, public testing::WithParamInterface<int> {};

TEST_P(StoppedProgram, SavesItsStepAndSaysHowToGoOn) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--ranks", "2"}}) {
    std::vector<std::string> arguments = training(1'000'000);
    arguments.insert(arguments.end(), {"--training.save_steps", "1000000"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const std::string log = path(more.empty() ? "log" : "log of ranks");
    RunningProgram program(arguments, log);
    const auto has_begun = [&] { return fs::exists(log) && program.output().find("step 10/") != std::string::npos; };
    while (program.running() && !has_begun()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ::kill(program.process(), GetParam());
    EXPECT_EQ(program.wait(), 128 + GetParam()) << program.output();
    EXPECT_THAT(program.output(), HasSubstr("Go on    ./qshard train"));
    EXPECT_THAT(program.output(), HasSubstr("--training.resume_from_checkpoint true"));
    const auto checkpoints = list_checkpoints(path("out"));
    ASSERT_EQ(checkpoints.size(), 1U) << program.output();
    EXPECT_NO_THROW(read_checkpoint(checkpoints.front()));
    fs::remove_all(path("out"));
  }
}

INSTANTIATE_TEST_SUITE_P(Signals, StoppedProgram, testing::Values(SIGINT, SIGTERM));

}  // namespace
}  // namespace qshard
