// Training over several processes, however they are started: the same bits as in one process, and no process outlives a
// rank that dies.
#include <chrono>
#include <fstream>
#include <iostream>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/training/training_checkpoint.h"
#include "correctness/run_program.h"
#include "correctness/temporary_directory.h"
#include "correctness/tiny_run.h"
#include "correctness/torch_store.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;
using Variables = std::vector<std::pair<std::string, std::string>>;

constexpr int kRanks = 3;
const std::vector<std::string> kMpirun{"mpirun", "--allow-run-as-root", "--oversubscribe", "-n",
                                       std::to_string(kRanks)};

bool has_mpirun() {
  return std::system("command -v mpirun >/dev/null 2>&1") == 0;
}

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// The processes that `parent` has started, by their QSHARD_RANK or OMPI_COMM_WORLD_RANK.
std::map<int, pid_t> ranks_of(pid_t parent) {
  std::map<int, pid_t> ranks;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream status(entry.path() / "stat");
    std::string text((std::istreambuf_iterator<char>(status)), {});
    const std::size_t close = text.rfind(')');
    if (close == std::string::npos || std::atoi(text.c_str() + close + 4) != parent || text[close + 2] == 'Z') continue;
    std::ifstream file(entry.path() / "environ");
    const std::string environment((std::istreambuf_iterator<char>(file)), {});
    for (const std::string variable : {"QSHARD_RANK=", "OMPI_COMM_WORLD_RANK="}) {
      const std::size_t at = environment.find(variable);
      if (at != std::string::npos) ranks[std::atoi(environment.c_str() + at + variable.size())] = std::stoi(name);
    }
  }
  return ranks;
}

bool is_saving(const fs::path& output) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(output, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("checkpoint-") && name.find(".tmp-") != std::string::npos) return true;
  }
  return false;
}

class Launch : public testing::Test {
 protected:
  Launch() {
    write_file(directory_ / "train.yaml", "lora: {r: 4, lora_alpha: 8}\n");
    write_random_dataset(directory_ / "data.safetensors", 30, 7);
  }

  /// `rows` a rank: equal products of ranks and rows take the same rows in each step.
  [[nodiscard]] std::vector<std::string> arguments(const std::string& output, std::int64_t steps, int ranks,
                                                   int rows = 2) const {
    std::vector<std::string> all =
        tiny_run_arguments(directory_ / "train.yaml", directory_ / "data.safetensors", directory_ / output, steps);
    return with(all, {"--fsdp.world_size", std::to_string(ranks), "--training.per_device_train_batch_size",
                      std::to_string(rows), "--training.eval_strategy", "steps", "--training.eval_steps", "1"});
  }

  [[nodiscard]] fs::path log(const std::string& name) const { return directory_ / (name + ".log"); }

  void run_alone(const std::string& output, std::int64_t steps, int ranks) {
    RunningProgram program(arguments(output, steps, ranks), log(output));
    ASSERT_EQ(program.wait(), 0) << program.output();
  }

  /// One program a rank, as a cluster's launcher starts them.
  void run_ranks(const std::string& output, std::int64_t steps, const std::function<Variables(int rank)>& variables) {
    std::vector<std::unique_ptr<RunningProgram>> programs;
    for (int rank = 0; rank < kRanks; ++rank) {
      programs.push_back(std::make_unique<RunningProgram>(arguments(output, steps, kRanks),
                                                          log(output + std::to_string(rank)), variables(rank)));
    }
    for (const auto& program : programs) EXPECT_EQ(program->wait(), 0) << program->output();
    EXPECT_EQ(programs[1]->output(), "") << "only rank 0 prints";
  }

  void expect_same(const std::string& output, const std::string& expected) {
    EXPECT_EQ(read_file(directory_ / output / "adapter_model.safetensors"),
              read_file(directory_ / expected / "adapter_model.safetensors"));
    EXPECT_EQ(read_file(directory_ / output / "trainer_state.json"),
              read_file(directory_ / expected / "trainer_state.json"));
    EXPECT_EQ(timeless_metrics(directory_ / output / "metrics.jsonl"),
              timeless_metrics(directory_ / expected / "metrics.jsonl"));
  }

  TemporaryDirectory directory_;
};

TEST_F(Launch, EveryLauncherGivesTheBitsOfOneProcess) {
  run_alone("alone", 3, kRanks);
  RunningProgram own(with(arguments("own", 3, kRanks), {"--ranks", "3"}), log("own"));
  ASSERT_EQ(own.wait(), 0) << own.output();
  expect_same("own", "alone");

  run_ranks("srun", 3, [&](int rank) {
    return Variables{{"SLURM_PROCID", std::to_string(rank)},       {"SLURM_NTASKS", "3"},
                     {"SLURM_LOCALID", std::to_string(rank)},      {"SLURM_STEP_ID", "0"},
                     {"SLURM_JOB_ID", std::to_string(::getpid())}, {"SLURM_NNODES", "1"}};
  });
  expect_same("srun", "alone");

  TorchStore store;
  store.put("/qshard/run/0/rank0", "127.0.0.1 1");  // of the run before a restart: nobody may go there
  const auto torchrun = [&](int rank) {
    return Variables{{"RANK", std::to_string(rank)},
                     {"WORLD_SIZE", "3"},
                     {"LOCAL_RANK", std::to_string(rank)},
                     {"MASTER_ADDR", "127.0.0.1"},
                     {"MASTER_PORT", std::to_string(store.port())},
                     {"TORCHELASTIC_RUN_ID", "run"},
                     {"TORCHELASTIC_RESTART_COUNT", "1"},
                     {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  };
  run_ranks("torchrun", 3, torchrun);
  expect_same("torchrun", "alone");
  EXPECT_THAT(store.keys(), testing::ElementsAre("/qshard/run/0/rank0", "/qshard/run/1/rank0"));
}

TEST_F(Launch, MpirunGivesTheBitsOfOneProcess) {
  if (!has_mpirun()) GTEST_SKIP() << "mpirun is not installed (openmpi-bin)";
  run_alone("alone", 3, kRanks);
  RunningProgram program(arguments("mpi", 3, 2), log("mpi"), {}, kMpirun);
  ASSERT_EQ(program.wait(), 0) << program.output();
  expect_same("mpi", "alone");
  EXPECT_THAT(program.output(), HasSubstr("fsdp.world_size is 2, but mpirun (Open MPI) decides: 3 ranks"));
}

TEST_F(Launch, EvaluationOverProcessesIsThatOfOne) {
  const auto eval = [&](const std::vector<std::string>& more, const std::string& name) {
    std::vector<std::string> all = arguments(name, 1, kRanks);
    all[0] = "eval";
    RunningProgram program(with(all, more), log(name));
    EXPECT_EQ(program.wait(), 0) << program.output();
    const std::string text = program.output();
    return text.substr(0, text.find("Time"));
  };
  const std::string expected = eval({}, "one");
  EXPECT_THAT(expected, HasSubstr("Loss"));
  EXPECT_EQ(eval({"--ranks", "3"}, "three"), expected);
}

TEST_F(Launch, ARunGoesOnAtAnotherWorldSize) {
  run_alone("whole", 6, kRanks);
  RunningProgram three(with(arguments("moved", 3, 3, 2), {"--ranks", "3", "--training.lr_scheduler_type", "constant"}),
                       log("first"));
  ASSERT_EQ(three.wait(), 0) << three.output();
  RunningProgram two(with(arguments("moved", 6, 2, 3), {"--ranks", "2", "--training.resume_from_checkpoint", "true",
                                                        "--training.lr_scheduler_type", "constant"}),
                     log("second"));
  ASSERT_EQ(two.wait(), 0) << two.output();
  RunningProgram whole(with(arguments("constant", 6, 3, 2), {"--training.lr_scheduler_type", "constant"}),
                       log("third"));
  ASSERT_EQ(whole.wait(), 0) << whole.output();
  const auto expected = timeless_metrics(directory_ / "constant" / "metrics.jsonl");
  const auto moved = timeless_metrics(directory_ / "moved" / "metrics.jsonl");
  ASSERT_EQ(moved.size(), expected.size());
  // Ranks change the order of sums only.
  for (std::size_t i = 0; i < moved.size(); ++i) {
    const auto* key = expected[i].contains("loss") ? "loss" : "eval_loss";
    const double loss = expected[i][key].get<double>();
    EXPECT_TRUE(std::abs(moved[i][key].get<double>() - loss) <= 1e-5 * loss) << moved[i] << expected[i];
  }
}

TEST_F(Launch, BadInputEndsAllRanksWithItsCode) {
  RunningProgram bad(with(arguments("bad", 3, kRanks), {"--ranks", "3", "--dataset.path", "nowhere.safetensors"}),
                     log("bad"));
  EXPECT_EQ(bad.wait(), 2);
  EXPECT_THAT(bad.output(), HasSubstr("nowhere.safetensors"));
  RunningProgram twice(with(arguments("twice", 3, kRanks), {"--ranks", "3"}), log("twice"),
                       {{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  EXPECT_EQ(twice.wait(), 2);
  EXPECT_THAT(twice.output(), HasSubstr("--ranks starts processes, but torchrun has started this one already"));
  RunningProgram never(with(arguments("never", 3, kRanks), {"--ranks", "3"}), log("never"),
                       {{"QSHARD_GRACE_SECONDS", "1 minute"}});
  EXPECT_EQ(never.wait(), 2);
  EXPECT_THAT(never.output(), HasSubstr("QSHARD_GRACE_SECONDS: \"1 minute\" must be a whole number"));
}

TEST_F(Launch, SigtermToTheLauncherEndsAllRanks) {
  RunningProgram program(with(arguments("stopped", 10'000, kRanks), {"--ranks", "3"}), log("stopped"));
  while (program.running() && list_checkpoints(directory_ / "stopped").empty()) {
    std::this_thread::sleep_for(milliseconds(20));
  }
  const auto ranks = ranks_of(program.process());
  ASSERT_EQ(ranks.size(), 3U) << program.output();
  ::kill(program.process(), SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM) << program.output();
  for (const auto& [rank, process] : ranks) EXPECT_NE(::kill(process, 0), 0) << "rank " << rank << " is still there";
}

/// Kills that fell into each kind of work, by the survivors' own words.
struct Kills {
  int step = 0;
  int save = 0;
  int evaluation = 0;

  void count(const std::string& output) {
    step += output.find("ended during step ") != std::string::npos ? 1 : 0;
    save += output.find("ended during the save ") != std::string::npos ? 1 : 0;
    evaluation += output.find("ended during the evaluation ") != std::string::npos ? 1 : 0;
  }
};

// On a busy machine survivors need seconds to end by themselves: the launcher waits for them as long as CTest does.
const Variables kPatience{{"QSHARD_GRACE_SECONDS", "600"}};

/// SIGKILL to a random rank of a run that is then resumed, until each kind of work was hit `wanted` times.
class KilledRanks : public Launch {
 protected:
  void kill_until(int wanted, const std::vector<std::string>& launcher, const std::vector<std::string>& more) {
    constexpr std::int64_t kSteps = 25;
    run_alone("whole", kSteps, kRanks);
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    std::mt19937 generator(seed);
    Kills kills;
    int runs = 0;
    milliseconds slowest{0};
    const auto missing = [&] { return std::min({kills.step, kills.save, kills.evaluation}) < wanted; };
    for (int attempt = 0; missing() && attempt < 40 * wanted; ++attempt) {
      const std::string output = "run" + std::to_string(runs);
      const fs::path before = newest(directory_ / output);
      RunningProgram program(
          with(with(arguments(output, kSteps, kRanks), more), {"--training.resume_from_checkpoint", "true"}),
          log(output), kPatience, launcher);
      wait_for_moment(program, directory_ / output, before, kills.save < wanted && attempt % 2 == 0, generator);
      const auto ranks = ranks_of(program.process());
      if (ranks.size() == kRanks && program.running()) {
        const int victim = static_cast<int>(generator() % kRanks);
        const std::string work = work_of(directory_ / output);
        const auto begin = steady_clock::now();
        ::kill(ranks.at(victim), SIGKILL);
        const int code = program.wait();
        const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
        slowest = std::max(slowest, took);
        // After the last checkpoint ranks only take leave: who has done so has nothing to tell of one that is killed.
        const bool at_work = newest(directory_ / output) != checkpoint_path(directory_ / output, kSteps);
        if (at_work) expect_failure_told(program.output(), victim, code, launcher.empty());
        expect_gone(ranks, begin);
        launcher.empty() ? kills.count(program.output()) : kills.count(work);
        for (const fs::path& checkpoint : list_checkpoints(directory_ / output)) {
          EXPECT_NO_THROW(read_checkpoint(checkpoint));
        }
      } else {
        if (program.running()) continue;
        ASSERT_EQ(program.wait(), 0) << program.output();
        expect_same(output, "whole");
        ++runs;
      }
    }
    const std::string last = "run" + std::to_string(runs);
    RunningProgram program(
        with(with(arguments(last, kSteps, kRanks), more), {"--training.resume_from_checkpoint", "true"}), log(last), {},
        launcher);
    ASSERT_EQ(program.wait(), 0) << program.output();
    expect_same(last, "whole");
    EXPECT_FALSE(missing()) << "the kills did not fall into all kinds of work";
    std::cout << kills.step << " kills during steps, " << kills.save << " during saves, " << kills.evaluation
              << " during evaluations; " << runs + 1 << " runs completed; slowest end " << slowest.count() << " ms\n";
  }

  /// What a run does now, seen from outside: mpirun ends the survivors before each of them has said it.
  static std::string work_of(const fs::path& output) {
    if (is_saving(output)) return "ended during the save ";
    const std::string metrics = read_file(output / "metrics.jsonl");
    const std::size_t last = metrics.rfind("\n{") == std::string::npos ? 0 : metrics.rfind("\n{");
    return metrics.find("eval_loss", last) == std::string::npos ? "ended during the evaluation " : "ended during step ";
  }

  static fs::path newest(const fs::path& output) {
    const std::vector<fs::path> checkpoints = list_checkpoints(output);
    return checkpoints.empty() ? fs::path() : checkpoints.front();
  }

  /// Some time after this start has saved a checkpoint of its own: ranks that still connect cannot tell a rank that was
  /// killed from one that is late, and wait for it.
  static void wait_for_moment(RunningProgram& program, const fs::path& output, const fs::path& before, bool in_save,
                              std::mt19937& generator) {
    while (program.running() && newest(output) == before) std::this_thread::sleep_for(milliseconds(5));
    std::this_thread::sleep_for(milliseconds(generator() % 1500));
    while (in_save && program.running() && !is_saving(output))
      std::this_thread::sleep_for(std::chrono::microseconds(200));
  }

  /// mpirun may return before the last of its processes is gone; the own launcher does not.
  static void expect_gone(const std::map<int, pid_t>& ranks, steady_clock::time_point begin) {
    for (const auto& [rank, process] : ranks) {
      while (::kill(process, 0) == 0 && steady_clock::now() - begin < milliseconds(30'000)) {
        std::this_thread::sleep_for(milliseconds(20));
      }
      EXPECT_NE(::kill(process, 0), 0) << "rank " << rank << " is still there";
    }
  }

  static void expect_failure_told(const std::string& output, int victim, int code, bool own_launcher) {
    const std::string name = "rank " + std::to_string(victim) + " (process ";
    if (own_launcher) {
      EXPECT_EQ(code, 4) << output;
    }
    EXPECT_NE(code, 0);
    for (int rank = 0; rank < kRanks; ++rank) {
      if (rank == victim || !own_launcher) continue;  // mpirun may end the others before they have seen it
      EXPECT_THAT(output, HasSubstr("rank " + std::to_string(rank) + ": " + name)) << "has not ended by itself";
    }
  }

  static int wanted() {
    const char* text = std::getenv("QSHARD_TEST_KILLS");  // of each kind; more of them by hand
    return text == nullptr ? 1 : std::atoi(text);
  }
};

TEST_F(KilledRanks, EndAllProcessesAndTheRunResumesToTheBit) {
  kill_until(wanted(), {}, {"--ranks", "3"});
}

TEST_F(KilledRanks, EndAllProcessesOfMpirun) {
  if (!has_mpirun()) GTEST_SKIP() << "mpirun is not installed (openmpi-bin)";
  constexpr std::int64_t kSteps = 10'000;
  RunningProgram program(arguments("mpi", kSteps, kRanks), log("mpi"), {}, kMpirun);
  while (program.running() && list_checkpoints(directory_ / "mpi").empty())
    std::this_thread::sleep_for(milliseconds(20));
  const auto ranks = ranks_of(program.process());
  ASSERT_EQ(ranks.size(), 3U) << program.output();
  const auto begin = steady_clock::now();
  ::kill(ranks.at(1), SIGKILL);
  EXPECT_NE(program.wait(), 0);
  EXPECT_LT(steady_clock::now() - begin, milliseconds(30'000));
  expect_gone(ranks, begin);
  EXPECT_NO_THROW(read_checkpoint(list_checkpoints(directory_ / "mpi").at(0)));
}

// Minutes: only where QSHARD_TEST_KILLS says how many of each kind.
TEST_F(KilledRanks, OfMpirunInEveryKindOfWork) {
  if (!has_mpirun()) GTEST_SKIP() << "mpirun is not installed (openmpi-bin)";
  if (std::getenv("QSHARD_TEST_KILLS") == nullptr) GTEST_SKIP() << "by hand: QSHARD_TEST_KILLS=10";
  kill_until(wanted(), kMpirun, {});
}

}  // namespace
}  // namespace qshard
