// kill -9 at random moments of training and of saving: the newest complete checkpoint always resumes, to the bit.
#include <chrono>
#include <iostream>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/training/training_checkpoint.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"
#include "correctness/tiny_run.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr std::int64_t kSteps = 40;
constexpr int kKills = 20;

bool is_saving(const fs::path& output) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(output, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("checkpoint-") && name.find(".tmp-") != std::string::npos) return true;
  }
  return false;
}

std::int64_t newest_step(const fs::path& output) {
  const auto checkpoints = list_checkpoints(output);
  return checkpoints.empty() ? 0 : checkpoint_step(checkpoints.front());
}

/// Lets the program run to a random moment: in the middle of a save of a later step, or just any.
void wait_for_moment(RunningProgram& program, const fs::path& output, bool in_save, std::mt19937& generator) {
  if (!in_save) {
    std::this_thread::sleep_for(milliseconds(generator() % 1000));
    return;
  }
  const std::int64_t after = newest_step(output) + static_cast<std::int64_t>(generator() % 3);
  while (program.running() && !(newest_step(output) >= after && is_saving(output))) {
    std::this_thread::sleep_for(microseconds(200));
  }
  std::this_thread::sleep_for(microseconds(generator() % 3000));
}

class KillResume : public testing::Test {
 protected:
  KillResume() {
    write_file(directory_ / "train.yaml", "lora: {r: 4, lora_alpha: 8}\n");
    write_random_dataset(directory_ / "data.safetensors", 30, 7);
  }

  [[nodiscard]] std::vector<std::string> arguments(const std::string& output) const {
    return tiny_run_arguments(directory_ / "train.yaml", directory_ / "data.safetensors", directory_ / output, kSteps);
  }

  [[nodiscard]] std::vector<std::string> resuming(const std::string& output) const {
    std::vector<std::string> all = arguments(output);
    all.insert(all.end(), {"--training.resume_from_checkpoint", "true"});
    return all;
  }

  void expect_same_as_uninterrupted(const std::string& output) {
    for (const auto* name : {"adapter_model.safetensors", "trainer_state.json"}) {
      EXPECT_EQ(read_file(directory_ / output / name), read_file(directory_ / "whole" / name)) << name;
    }
    EXPECT_EQ(timeless_metrics(directory_ / output / "metrics.jsonl"),
              timeless_metrics(directory_ / "whole" / "metrics.jsonl"));
    EXPECT_EQ(metrics_context(directory_ / output / "metrics.jsonl")["seed"], 42);
  }

  TemporaryDirectory directory_;
};

TEST_F(KillResume, EveryKilledRunEndsAsTheUninterruptedOne) {
  RunningProgram whole(arguments("whole"), directory_ / "whole.log");
  ASSERT_EQ(whole.wait(), 0) << whole.output();

  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937 generator(seed);
  int kills = 0;
  int kills_in_save = 0;
  int runs = 0;
  while (kills < kKills) {
    const std::string output = "run" + std::to_string(runs);
    const fs::path path = directory_ / output;
    RunningProgram program(resuming(output), directory_ / (output + ".log"));
    wait_for_moment(program, path, kills % 2 == 0, generator);
    if (program.running()) {
      program.kill();
      ++kills;
      kills_in_save += is_saving(path) ? 1 : 0;
      for (const fs::path& checkpoint : list_checkpoints(path)) EXPECT_NO_THROW(read_checkpoint(checkpoint));
    } else {
      ASSERT_EQ(program.wait(), 0) << program.output();
      expect_same_as_uninterrupted(output);
      ++runs;
    }
  }
  const std::string last = "run" + std::to_string(runs);
  RunningProgram program(resuming(last), directory_ / (last + ".log"));
  ASSERT_EQ(program.wait(), 0) << program.output();
  expect_same_as_uninterrupted(last);
  EXPECT_FALSE(is_saving(directory_ / last)) << "a killed run's half-written checkpoint is still there";
  EXPECT_GT(kills_in_save, 0) << "no kill fell into a save; nothing was shown about saving";
  std::cout << kills << " kills, " << kills_in_save << " of them while saving, " << runs + 1 << " runs completed\n";
}

}  // namespace
}  // namespace qshard
