// Ranks of the training step on GPUs as processes: however shards come together, adapters, optimizer states and losses
// have the same bits. Ranks share one GPU where nothing else is said. This program starts itself for each rank.
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/launch/rank_info.h"
#include "core/launch/rank_link.h"
#include "correctness/golden_training.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/temporary_directory.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard::test {
namespace {

using nlohmann::json;

constexpr const char* kJobVariable = "QSHARD_TEST_RUNS";

/// One training run of a job's ranks.
struct RankRun {
  Transport transport = Transport::automatic;
  bool offload = false;
  ShardingStrategy sharding = ShardingStrategy::full_shard;
  int group = 0;
  std::string base = "base";
  DType dtype = DType::bf16;
  DType storage = DType::u8;
};

/// Ranks as processes, which do one run after the other.
struct Job {
  int ranks = 2;
  bool own_gpus = false;  // a GPU each; else all on the first
  bool killed = false;    // the last rank is killed while it trains
  std::vector<RankRun> runs{};
};

struct Result {
  std::vector<double> losses;
  std::vector<double> grad_norms;
  NamedTensors tensors;  // the adapter's and the optimizer's
};

struct JobResult {
  int exit_code = 0;  // the first that is not 0, of ranks that were not killed on purpose
  std::string output;
  double seconds = 0;
  std::vector<Result> runs;  // empty where the job failed
};

std::string text_of(const Job& job) {
  json runs = json::array();
  for (const RankRun& run : job.runs) {
    runs.push_back({{"transport", run.transport},
                    {"offload", run.offload},
                    {"sharding", run.sharding},
                    {"group", run.group},
                    {"base", run.base},
                    {"dtype", run.dtype},
                    {"storage", run.storage}});
  }
  return json{{"runs", runs}, {"killed", job.killed}}.dump();
}

EngineOptions options_of(const json& run, int ranks) {
  EngineOptions options = golden_options(run.at("dtype").get<DType>());
  options.world_size = ranks;
  options.lora.dropout = 0.1;
  options.transport = run.at("transport").get<Transport>();
  options.gradient_checkpointing = MemorySaving::always;
  options.activation_offloading = MemorySaving::never;
  options.offload = run.at("offload").get<bool>();
  options.sharding = run.at("sharding").get<ShardingStrategy>();
  options.shard_group = run.at("group").get<int>();
  options.quantization.quant_storage = run.at("storage").get<DType>();
  return options;
}

void kill_soon() {
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ::kill(::getpid(), SIGKILL);
  }).detach();
}

/// Four steps; in between the adapter and the optimizer's state are saved, and another engine goes on from them.
json train_and_resume(const json& run, bool killed, RankLink& link, NamedTensors& tensors) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / run.at("base").get<std::string>());
  const auto source = optimized::make_checkpoint_source(checkpoint);
  const TokenBatch batch =
      golden_batches(static_cast<std::size_t>(link.world_size()))[static_cast<std::size_t>(link.rank())];
  const BatchBound bound{batch.tokens(), batch.rows(), longest_row(batch)};
  const RunBounds bounds{bound, bound};
  const EngineOptions options = options_of(run, link.world_size());
  const auto make = [&] { return optimized::make_sharded_engine(checkpoint.config(), *source, options, bounds, link); };
  auto engine = make();
  json losses = json::array();
  json norms = json::array();
  const auto train = [&](std::int64_t step) {
    const StepResult taken = engine->train_step({{batch}}, kGoldenLearningRate, step);
    losses.push_back(taken.loss);
    norms.push_back(taken.grad_norm);
  };
  train(1);
  train(2);
  if (killed && link.rank() + 1 == link.world_size()) kill_soon();
  for (std::int64_t step = 3; killed; ++step) train(step);
  const NamedTensors adapter = engine->adapter();
  const NamedTensors state = engine->optimizer_state();
  engine.reset();
  link.barrier();
  engine = make();
  engine->load_adapter(adapter);
  engine->load_optimizer_state(state);
  train(3);
  losses.push_back(engine->evaluate({batch}).sum);
  train(4);
  losses.push_back(engine->evaluate({batch}).sum);
  tensors = engine->adapter();
  for (auto& [name, tensor] : engine->optimizer_state()) tensors[name] = std::move(tensor);
  return {{"losses", losses}, {"grad_norms", norms}};
}

std::filesystem::path tensors_of(const std::filesystem::path& folder, std::size_t run) {
  return folder / fmt::format("{}.safetensors", run);
}

void work_as_rank(const std::filesystem::path& folder) {
  RankLink link = RankLink::connect(read_rank_info(environment_variable), {.version = "test"});
  tell_failures(link, [&] {
    const json job = json::parse(std::getenv(kJobVariable));
    json results = json::array();
    for (const json& run : job.at("runs")) {
      NamedTensors tensors;
      json result = train_and_resume(run, job.at("killed").get<bool>(), link, tensors);
      if (!link.is_first()) continue;
      std::vector<std::pair<std::string, TensorView>> views;
      for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
      write_safetensors(tensors_of(folder, results.size()), std::move(views), {});
      results.push_back(std::move(result));
    }
    if (link.is_first()) std::ofstream(folder / "result.json") << results;
  });
}

// Not a test: what a rank runs.
TEST(RankProcess, DISABLED_Trains) {
  try {
    work_as_rank(std::getenv("QSHARD_TEST_FOLDER"));
  } catch (const Error& error) {
    fmt::print("{}\n", error.what());
    std::fflush(stdout);
    ::_exit(static_cast<int>(error.code()));
  }
}

pid_t start_rank(const Job& job, int rank, const std::string& name, const std::filesystem::path& folder) {
  const std::vector<std::pair<std::string, std::string>> variables{{"QSHARD_RANK", std::to_string(rank)},
                                                                   {"QSHARD_WORLD_SIZE", std::to_string(job.ranks)},
                                                                   {"QSHARD_LOCAL_RANK", std::to_string(rank)},
                                                                   {"QSHARD_JOB", name},
                                                                   {kJobVariable, text_of(job)},
                                                                   {"QSHARD_TEST_FOLDER", folder.string()}};
  const std::string log = (folder / ("rank" + std::to_string(rank))).string();
  const pid_t process = ::fork();
  if (process != 0) return process;
  if (std::freopen(log.c_str(), "w", stdout) == nullptr || ::dup2(STDOUT_FILENO, STDERR_FILENO) < 0) ::_exit(127);
  for (const auto& [variable, value] : variables) ::setenv(variable.c_str(), value.c_str(), 1);
  if (!job.own_gpus) ::setenv("CUDA_VISIBLE_DEVICES", "0", 0);
  for (const char* of_the_tests : {"GTEST_TOTAL_SHARDS", "GTEST_SHARD_INDEX", "GTEST_OUTPUT"}) ::unsetenv(of_the_tests);
  ::execl("/proc/self/exe", "rank", "--gtest_filter=RankProcess.DISABLED_Trains", "--gtest_also_run_disabled_tests",
          nullptr);
  ::_exit(127);
}

JobResult run_job(const Job& job) {
  static int count = 0;
  const TemporaryDirectory folder;
  const std::string name = fmt::format("gpu-test-{}-{}", ::getpid(), count++);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<pid_t> processes;
  for (int rank = 0; rank < job.ranks; ++rank) processes.push_back(start_rank(job, rank, name, folder.path()));
  JobResult result;
  for (int rank = 0; rank < job.ranks; ++rank) {
    int status = 0;
    ::waitpid(processes[static_cast<std::size_t>(rank)], &status, 0);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    const bool on_purpose = job.killed && rank + 1 == job.ranks;
    if (result.exit_code == 0 && !on_purpose) result.exit_code = code;
    std::ifstream log(folder.path() / ("rank" + std::to_string(rank)));
    result.output.append(std::istreambuf_iterator<char>(log), {});
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (result.exit_code != 0) return result;
  std::ifstream stream(folder.path() / "result.json");
  for (const json& values : json::parse(stream)) {
    Result& run = result.runs.emplace_back();
    run.losses = values.at("losses").get<std::vector<double>>();
    run.grad_norms = values.at("grad_norms").get<std::vector<double>>();
    run.tensors = read_named_tensors(tensors_of(folder.path(), result.runs.size() - 1));
  }
  return result;
}

void expect_same_bits(const Result& got, const Result& wanted, const std::string& what) {
  EXPECT_EQ(got.losses, wanted.losses) << what;
  EXPECT_EQ(got.grad_norms, wanted.grad_norms) << what;
  ASSERT_GT(wanted.tensors.size(), 0U);
  ASSERT_EQ(got.tensors.size(), wanted.tensors.size()) << what;
  for (const auto& [name, tensor] : wanted.tensors) {
    const auto a = got.tensors.at(name).bytes();
    ASSERT_EQ(a.size(), tensor.bytes().size());
    EXPECT_EQ(std::memcmp(a.data(), tensor.bytes().data(), a.size()), 0) << what << " " << name;
  }
}

std::string describe(const RankRun& run) {
  return fmt::format("{} {}{} storage {}", to_string(run.sharding), to_string(run.transport),
                     run.offload ? " offload" : "", torch_name(run.storage));
}

/// Runs the job, whose runs differ in what must change no bit from the first of each `group` of them.
std::vector<Result> expect_equal_groups(const Job& job, std::size_t group) {
  const JobResult result = run_job(job);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  if (result.exit_code != 0) return {};
  for (std::size_t run = 0; run < job.runs.size(); ++run) {
    expect_same_bits(result.runs[run], result.runs[run - run % group], describe(job.runs[run]));
  }
  return result.runs;
}

/// A run by each way that needs no second GPU; the first is peer.
void add_ways(Job& job, RankRun run) {
  run.transport = Transport::peer;
  job.runs.push_back(run);
  run.transport = Transport::host;
  job.runs.push_back(run);
  run.transport = Transport::automatic;
  run.offload = true;
  job.runs.push_back(run);
}
constexpr std::size_t kWays = 3;

class ShardedRanksGpu : public GpuTest {
 protected:
  static int devices() {
    int count = 0;
    QSHARD_CUDA_CHECK(cudaGetDeviceCount(&count));
    return count;
  }
};

TEST_F(ShardedRanksGpu, OneRankWithOffloadGivesTheBitsWithout) {
  Job job{.ranks = 1};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool offload : {false, true})
      job.runs.push_back({.offload = offload, .base = "bnb4bit", .dtype = dtype});
  }
  expect_equal_groups(job, 2);
}

TEST_F(ShardedRanksGpu, EveryStrategyAndStorageGivesItsBitsEveryWay) {
  Job job;
  for (const auto sharding :
       {ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op, ShardingStrategy::no_shard}) {
    add_ways(job, {.sharding = sharding});
  }
  for (const DType storage : {DType::f16, DType::bf16, DType::f32}) add_ways(job, {.storage = storage});
  expect_equal_groups(job, kWays);
}

TEST_F(ShardedRanksGpu, ThreeRanksGiveTheirBitsEveryWay) {
  Job job{.ranks = 3};
  add_ways(job, {});
  expect_equal_groups(job, kWays);
}

// Two groups of two. Groups change where shards lie, not what is added up; only the norm is, in another order.
TEST_F(ShardedRanksGpu, HybridShardGivesItsBitsEveryWay) {
  Job job{.ranks = 4};
  add_ways(job, {.dtype = DType::f32});
  add_ways(job, {.sharding = ShardingStrategy::hybrid_shard, .group = 2, .dtype = DType::f32});
  const std::vector<Result> results = expect_equal_groups(job, kWays);
  if (results.empty()) return;
  reference::expect_relative(results[kWays].losses, results[0].losses, 1e-6, "loss");
  reference::expect_relative(results[kWays].grad_norms, results[0].grad_norms, 1e-6, "gradient norm");
}

// The same global batch on more ranks: only sums over tokens are cut elsewhere.
TEST_F(ShardedRanksGpu, RanksChangeLossesByRoundingOnly) {
  RankRun run{.dtype = DType::f32};
  const JobResult one = run_job({.ranks = 1, .runs = {run}});
  ASSERT_EQ(one.exit_code, 0) << one.output;
  run.transport = Transport::host;
  const JobResult several = run_job({.ranks = 4, .runs = {run}});
  ASSERT_EQ(several.exit_code, 0) << several.output;
  reference::expect_relative(several.runs[0].losses, one.runs[0].losses, 1e-5, "loss");
}

TEST_F(ShardedRanksGpu, NcclGivesThePeersBits) {
  if (devices() < 2) GTEST_SKIP() << "not run: NCCL needs two GPUs";
  Job job{.own_gpus = true};
  for (const auto sharding :
       {ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op, ShardingStrategy::no_shard}) {
    for (const Transport transport : {Transport::peer, Transport::nccl, Transport::host}) {
      job.runs.push_back({.transport = transport, .sharding = sharding});
    }
  }
  expect_equal_groups(job, 3);
}

TEST_F(ShardedRanksGpu, NcclWithinGroupsGivesThePeersBits) {
  if (devices() < 4) GTEST_SKIP() << "not run: two groups of two ranks over NCCL need four GPUs";
  Job job{.ranks = 4, .own_gpus = true};
  for (const Transport transport : {Transport::peer, Transport::nccl}) {
    job.runs.push_back({.transport = transport, .sharding = ShardingStrategy::hybrid_shard, .group = 2});
  }
  expect_equal_groups(job, 2);
}

// A stream that waits for a dead rank waits for ever: the process must end all the same.
TEST_F(ShardedRanksGpu, AKilledRankEndsTheOthers) {
  std::vector<Job> jobs;
  for (const Transport transport : {Transport::peer, Transport::host}) {
    jobs.push_back({.killed = true, .runs = {{.transport = transport}}});
  }
  if (devices() >= 2) jobs.push_back({.own_gpus = true, .killed = true, .runs = {{.transport = Transport::nccl}}});
  for (const Job& job : jobs) {
    const JobResult result = run_job(job);
    fmt::print("{}: all ended after {:.1f} s\n", describe(job.runs[0]), result.seconds);
    EXPECT_EQ(result.exit_code, 4) << describe(job.runs[0]) << "\n" << result.output;
    EXPECT_LE(result.seconds, 30.0) << describe(job.runs[0]);
  }
}

TEST_F(ShardedRanksGpu, NcclRefusesTwoRanksOnOneGpu) {
  const JobResult result = run_job({.runs = {{.transport = Transport::nccl}}});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, testing::HasSubstr("have the same GPU"));
}

TEST_F(ShardedRanksGpu, OffloadRefusesOtherTransports) {
  const JobResult result = run_job({.ranks = 1, .runs = {{.transport = Transport::peer, .offload = true}}});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, testing::HasSubstr("leave fsdp.transport out"));
}

}  // namespace
}  // namespace qshard::test
