// Ranks of the training step on GPUs as processes: however shards come together, adapters, optimizer states and losses
// have the same bits. Ranks share one GPU where nothing else is said. This program starts itself for each rank.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

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

constexpr const char* kRunVariable = "QSHARD_TEST_RUN";

/// What the ranks of a job are to do.
struct Run {
  int ranks = 2;
  Transport transport = Transport::automatic;
  bool offload = false;
  ShardingStrategy sharding = ShardingStrategy::full_shard;
  int group = 0;
  std::string base = "base";
  DType dtype = DType::bf16;
  bool own_gpus = false;  // a GPU each; else all on the first
};

struct Result {
  int exit_code = 0;
  std::string output;
  std::vector<double> losses;
  std::vector<double> grad_norms;
  NamedTensors tensors;  // the adapter's and the optimizer's
};

std::string text_of(const Run& run) {
  return json{{"transport", run.transport}, {"offload", run.offload}, {"sharding", run.sharding},
              {"group", run.group},         {"base", run.base},       {"dtype", run.dtype}}
      .dump();
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
  return options;
}

/// Four steps; in between the adapter and the optimizer's state are saved, and another engine goes on from them.
json train_and_resume(const json& run, RankLink& link, NamedTensors& tensors) {
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
  const NamedTensors adapter = engine->adapter();
  const NamedTensors state = engine->optimizer_state();
  engine.reset();
  link.barrier();
  engine = make();
  engine->load_adapter(adapter);
  engine->load_optimizer_state(state);
  train(3);
  train(4);
  losses.push_back(engine->evaluate({batch}).sum);
  tensors = engine->adapter();
  for (auto& [name, tensor] : engine->optimizer_state()) tensors[name] = std::move(tensor);
  return {{"losses", losses}, {"grad_norms", norms}};
}

void work_as_rank(const std::filesystem::path& folder) {
  RankLink link = RankLink::connect(read_rank_info(environment_variable), {.version = "test"});
  tell_failures(link, [&] {
    NamedTensors tensors;
    const json result = train_and_resume(json::parse(std::getenv(kRunVariable)), link, tensors);
    if (!link.is_first()) return;
    std::ofstream(folder / "result.json") << result;
    std::vector<std::pair<std::string, TensorView>> views;
    for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
    write_safetensors(folder / "tensors.safetensors", std::move(views), {});
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

pid_t start_rank(const Run& run, int rank, const std::string& job, const std::filesystem::path& folder) {
  const std::vector<std::pair<std::string, std::string>> variables{{"QSHARD_RANK", std::to_string(rank)},
                                                                   {"QSHARD_WORLD_SIZE", std::to_string(run.ranks)},
                                                                   {"QSHARD_LOCAL_RANK", std::to_string(rank)},
                                                                   {"QSHARD_JOB", job},
                                                                   {kRunVariable, text_of(run)},
                                                                   {"QSHARD_TEST_FOLDER", folder.string()}};
  const std::string log = (folder / ("rank" + std::to_string(rank))).string();
  const pid_t process = ::fork();
  if (process != 0) return process;
  if (std::freopen(log.c_str(), "w", stdout) == nullptr || ::dup2(STDOUT_FILENO, STDERR_FILENO) < 0) ::_exit(127);
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  if (!run.own_gpus) ::setenv("CUDA_VISIBLE_DEVICES", "0", 0);
  ::execl("/proc/self/exe", "rank", "--gtest_filter=RankProcess.DISABLED_Trains", "--gtest_also_run_disabled_tests",
          nullptr);
  ::_exit(127);
}

/// Runs the job; the exit code is the first that is not 0.
Result run_ranks(const Run& run) {
  static int count = 0;
  const TemporaryDirectory folder;
  const std::string job = fmt::format("gpu-test-{}-{}", ::getpid(), count++);
  std::vector<pid_t> processes;
  for (int rank = 0; rank < run.ranks; ++rank) processes.push_back(start_rank(run, rank, job, folder.path()));
  Result result;
  for (int rank = 0; rank < run.ranks; ++rank) {
    int status = 0;
    ::waitpid(processes[static_cast<std::size_t>(rank)], &status, 0);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (result.exit_code == 0) result.exit_code = code;
    std::ifstream log(folder.path() / ("rank" + std::to_string(rank)));
    result.output.append(std::istreambuf_iterator<char>(log), {});
  }
  if (result.exit_code != 0) return result;
  std::ifstream stream(folder.path() / "result.json");
  const json values = json::parse(stream);
  result.losses = values.at("losses").get<std::vector<double>>();
  result.grad_norms = values.at("grad_norms").get<std::vector<double>>();
  result.tensors = read_named_tensors(folder.path() / "tensors.safetensors");
  return result;
}

void expect_same_bits(const Result& got, const Result& wanted) {
  ASSERT_EQ(got.exit_code, 0) << got.output;
  ASSERT_EQ(wanted.exit_code, 0) << wanted.output;
  EXPECT_EQ(got.losses, wanted.losses);
  EXPECT_EQ(got.grad_norms, wanted.grad_norms);
  ASSERT_GT(wanted.tensors.size(), 0U);
  ASSERT_EQ(got.tensors.size(), wanted.tensors.size());
  for (const auto& [name, tensor] : wanted.tensors) {
    const auto a = got.tensors.at(name).bytes();
    ASSERT_EQ(a.size(), tensor.bytes().size());
    EXPECT_EQ(std::memcmp(a.data(), tensor.bytes().data(), a.size()), 0) << name;
  }
}

class ShardedRanksGpu : public GpuTest {
 protected:
  static int devices() {
    int count = 0;
    QSHARD_CUDA_CHECK(cudaGetDeviceCount(&count));
    return count;
  }
};

TEST_F(ShardedRanksGpu, HostMemoryAndOffloadGiveThePeersBits) {
  for (const int ranks : {2, 3}) {
    Run run{.ranks = ranks, .transport = Transport::peer};
    const Result peer = run_ranks(run);
    run.transport = Transport::automatic;
    expect_same_bits(run_ranks(run), peer);
    run.transport = Transport::host;
    expect_same_bits(run_ranks(run), peer);
    run.transport = Transport::automatic;
    run.offload = true;
    expect_same_bits(run_ranks(run), peer);
  }
}

TEST_F(ShardedRanksGpu, OneRankWithOffloadGivesTheBitsWithout) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Run run{.ranks = 1, .base = "bnb4bit", .dtype = dtype};
    const Result resident = run_ranks(run);
    run.offload = true;
    expect_same_bits(run_ranks(run), resident);
  }
}

TEST_F(ShardedRanksGpu, EveryStrategyGivesItsBitsOverEveryTransport) {
  for (const ShardingStrategy sharding : {ShardingStrategy::shard_grad_op, ShardingStrategy::no_shard}) {
    Run run{.transport = Transport::peer, .sharding = sharding};
    const Result peer = run_ranks(run);
    run.transport = Transport::host;
    expect_same_bits(run_ranks(run), peer);
    run.offload = true;
    expect_same_bits(run_ranks(run), peer);
  }
}

// Two groups of two. Groups change where shards lie, not what is added up; only the norm is, in another order.
TEST_F(ShardedRanksGpu, HybridShardGivesItsBitsOverEveryTransport) {
  Run run{.ranks = 4, .transport = Transport::peer, .dtype = DType::f32};
  const Result full = run_ranks(run);
  ASSERT_EQ(full.exit_code, 0) << full.output;
  run.sharding = ShardingStrategy::hybrid_shard;
  run.group = 2;
  const Result hybrid = run_ranks(run);
  ASSERT_EQ(hybrid.exit_code, 0) << hybrid.output;
  reference::expect_relative(hybrid.losses, full.losses, 1e-6, "loss");
  reference::expect_relative(hybrid.grad_norms, full.grad_norms, 1e-6, "gradient norm");
  run.transport = Transport::host;
  expect_same_bits(run_ranks(run), hybrid);
  run.offload = true;
  expect_same_bits(run_ranks(run), hybrid);
  if (devices() < 4) return;
  run.own_gpus = true;
  run.offload = false;
  run.transport = Transport::nccl;
  expect_same_bits(run_ranks(run), hybrid);
}

// The same global batch on more ranks: only sums over tokens are cut elsewhere.
TEST_F(ShardedRanksGpu, RanksChangeLossesByRoundingOnly) {
  const Result one = run_ranks({.ranks = 1, .dtype = DType::f32});
  ASSERT_EQ(one.exit_code, 0) << one.output;
  for (const int ranks : {2, 4}) {
    const Result several = run_ranks({.ranks = ranks, .transport = Transport::host, .dtype = DType::f32});
    ASSERT_EQ(several.exit_code, 0) << several.output;
    reference::expect_relative(several.losses, one.losses, 1e-5, "loss");
  }
}

TEST_F(ShardedRanksGpu, NcclGivesThePeersBits) {
  if (devices() < 2) GTEST_SKIP() << "not run: NCCL needs two GPUs";
  for (const ShardingStrategy sharding : {ShardingStrategy::full_shard, ShardingStrategy::no_shard}) {
    Run run{.transport = Transport::peer, .sharding = sharding, .own_gpus = true};
    const Result peer = run_ranks(run);
    run.transport = Transport::nccl;
    expect_same_bits(run_ranks(run), peer);
    run.transport = Transport::host;
    expect_same_bits(run_ranks(run), peer);
  }
}

TEST_F(ShardedRanksGpu, NcclRefusesTwoRanksOnOneGpu) {
  const Result result = run_ranks({.transport = Transport::nccl});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, testing::HasSubstr("have the same GPU"));
}

TEST_F(ShardedRanksGpu, OffloadRefusesOtherTransports) {
  const Result result = run_ranks({.ranks = 1, .transport = Transport::peer, .offload = true});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, testing::HasSubstr("leave fsdp.transport out"));
}

}  // namespace
}  // namespace qshard::test
