// One rank of a measured FSDP-QLoRA step on random weights of a model's shape, made on the device. Prints a JSON line
// on rank 0: seconds of each step, tokens a second, memory. bench/sharded_step/run starts the ranks, and the peer.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <random>

#include <CLI/CLI.hpp>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/model_shape.h"
#include "bench/sharded_step/frozen_products.h"
#include "bench/sharded_step/gpu_activity.h"
#include "core/base/error.h"
#include "core/base/fnv_hash.h"
#include "core/launch/rank_info.h"
#include "core/launch/rank_link.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard::bench {
namespace {

struct Options {
  std::string model = "llama-2-70b";
  std::int64_t layers = 8;
  std::int64_t length = 2048;
  std::int64_t rows = 1;
  int r = 64;
  double dropout = 0.1;
  std::string checkpointing = "on";
  std::string offloading = "auto";
  std::string sharding = "FULL_SHARD";
  std::string dtype = "bfloat16";
  int shard_group = 0;
  std::string transport = "peer";
  bool offload = false;
  double budget_gib = 0;
  int steps = 8;
  int accumulation = 1;
  bool hash = false;
  bool idle = false;
  double leave_free_gib = 0;
  std::string moments = "bf16";
  bool products_alone = false;
};

TokenBatch random_batch(const Options& options, std::int64_t vocab, int rank) {
  std::mt19937 random(static_cast<unsigned>(rank) + 1);
  std::uniform_int_distribution<std::int32_t> token(0, static_cast<std::int32_t>(vocab) - 1);
  TokenBatch batch;
  for (std::int64_t row = 0; row < options.rows; ++row) {
    for (std::int64_t t = 0; t < options.length; ++t) batch.input_ids.push_back(token(random));
    batch.offsets.push_back(batch.tokens());
    batch.row_ids.push_back(static_cast<std::uint64_t>(rank * options.rows + row));
  }
  batch.labels = batch.input_ids;
  return batch;
}

MemorySaving saving_of(const std::string& name) {
  if (name == "on") return MemorySaving::always;
  return name == "off" ? MemorySaving::never : MemorySaving::automatic;
}

/// Of names and bytes: equal for equal adapters.
std::uint64_t hash_of(const NamedTensors& adapter) {
  std::uint64_t hash = kFnvBasis;
  for (const auto& [name, tensor] : adapter) {
    hash = fnv_hash(tensor.bytes(), fnv_hash(std::as_bytes(std::span(name)), hash));
  }
  return hash;
}

ShardingStrategy sharding_of(const std::string& name) {
  for (const auto strategy : {ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op, ShardingStrategy::no_shard,
                              ShardingStrategy::hybrid_shard}) {
    if (to_string(strategy) == name) return strategy;
  }
  fail_input("--sharding: {} is none of FULL_SHARD, SHARD_GRAD_OP, NO_SHARD, HYBRID_SHARD", name);
}

Transport transport_of(const std::string& name) {
  for (const auto transport : {Transport::peer, Transport::nccl, Transport::host}) {
    if (to_string(transport) == name) return transport;
  }
  fail_input("--transport: {} is none of peer, nccl, host", name);
}

std::int64_t used_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(total - free);
}

/// Holds the memory of every GPU but so much, as another program would, until the standard input ends.
void hold_memory(double leave_free_gib) {
  int devices = 0;
  QSHARD_CUDA_CHECK(cudaGetDeviceCount(&devices));
  for (int device = 0; device < devices; ++device) {
    QSHARD_CUDA_CHECK(cudaSetDevice(device));
    QSHARD_CUDA_CHECK(cudaFree(nullptr));  // the context
  }
  std::vector<optimized::DeviceBuffer> held;
  for (int device = 0; device < devices; ++device) {
    QSHARD_CUDA_CHECK(cudaSetDevice(device));
    std::size_t free = 0;
    std::size_t total = 0;
    QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    const double surplus = static_cast<double>(free) - leave_free_gib * (1 << 30);
    if (surplus < 0) fail_input("GPU {} has less than {} GiB free", device, leave_free_gib);
    held.emplace_back(static_cast<std::size_t>(surplus));
    QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    fmt::print("{{\"device\": {}, \"free_bytes\": {}, \"total_bytes\": {}}}\n", device, free, total);
  }
  std::fflush(stdout);
  while (std::getchar() != EOF) continue;
}

/// Of all but the first two, which warm up.
double median_of(const std::vector<double>& values) {
  std::vector<double> sorted(values.begin() + std::min<std::ptrdiff_t>(2, std::ssize(values) - 1), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

std::string device_name() {
  cudaDeviceProp properties{};
  QSHARD_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
}

void measure_products(const Options& options) {
  const ModelConfig config = model_shape(options.model, options.layers);
  const std::vector<double> seconds = time_frozen_products(config, options.rows * options.length, options.steps);
  const nlohmann::json line = {{"provider", "qshard"},
                               {"what", "frozen products alone"},
                               {"model", options.model},
                               {"layers", config.num_hidden_layers},
                               {"seq", options.length},
                               {"micro_batch", options.rows},
                               {"gpus", 1},
                               {"device", device_name()},
                               {"seconds", seconds},
                               {"step_s", median_of(seconds)}};
  fmt::print("{}\n", line.dump());
}

void measure(const Options& options, RankLink& link) {
  const ModelConfig config = model_shape(options.model, options.layers);
  EngineOptions engine_options;
  engine_options.world_size = link.world_size();
  engine_options.sharding = sharding_of(options.sharding);
  engine_options.shard_group = options.shard_group;
  engine_options.transport = options.offload ? Transport::host : transport_of(options.transport);
  engine_options.offload = options.offload;
  engine_options.quantization.quant_storage = DType::bf16;
  engine_options.lora.r = options.r;
  engine_options.lora.alpha = 16;
  engine_options.lora.dropout = options.dropout;
  engine_options.optimizer.moments =
      options.moments == "8bit" ? MomentFormat::blockwise_8bit : MomentFormat::lora_dtype;
  engine_options.max_grad_norm = 0.3;
  engine_options.dtype = engine_options.compute_dtype = options.dtype == "float32" ? DType::f32 : DType::bf16;
  engine_options.gradient_checkpointing = saving_of(options.checkpointing);
  engine_options.activation_offloading = saving_of(options.offloading);
  engine_options.memory_budget = static_cast<std::int64_t>(options.budget_gib * (1 << 30));
  const BatchBound bound{options.rows * options.length, options.rows, options.length};
  const auto source = optimized::make_random_source(0.02, 1234);
  const auto begin = std::chrono::steady_clock::now();
  const auto engine = optimized::make_sharded_engine(config, *source, engine_options, {bound, {}}, link);
  const TokenBatch batch = random_batch(options, config.vocab_size, link.rank());
  const std::chrono::duration<double> loading = std::chrono::steady_clock::now() - begin;

  std::optional<GpuActivity> activity;
  if (options.idle) activity.emplace();
  std::vector<TimeSpan> windows;
  std::vector<double> seconds;
  std::vector<double> losses;
  for (int step = 1; step <= options.steps; ++step) {
    link.barrier();
    const auto start = std::chrono::steady_clock::now();
    if (activity) windows.push_back({activity->now(), 0});
    const std::vector<std::vector<TokenBatch>> micro_batches(static_cast<std::size_t>(options.accumulation), {batch});
    losses.push_back(engine->train_step(micro_batches, 1e-4, step).loss);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    if (activity) windows.back().end = activity->now();
    link.barrier();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const double median = median_of(seconds);
  std::vector<double> idle;
  if (activity) {
    const std::vector<TimeSpan> busy = activity->busy();
    for (const TimeSpan& window : windows) idle.push_back(idle_fraction(window, busy));
  }
  const std::int64_t used = used_bytes();
  const std::int64_t arena = engine->peak_bytes_by_rank().front();
  const std::uint64_t hash = options.hash ? hash_of(engine->adapter()) : 0;
  if (!link.is_first()) return;
  nlohmann::json line = {
      {"provider", "qshard"},
      {"model", options.model},
      {"layers", config.num_hidden_layers},
      {"seq", options.length},
      {"micro_batch", options.rows},
      {"r", options.r},
      {"dropout", options.dropout},
      {"gpus", link.world_size()},
      {"checkpointing", options.checkpointing},
      {"offloading", options.offloading},
      {"sharding", options.sharding},
      {"dtype", options.dtype},
      {"moments", options.moments},
      {"transport", options.offload ? "offload" : options.transport},
      {"device", device_name()},
      {"seconds", seconds},
      {"step_s", median},
      {"losses", losses},
      {"adapter_hash", hash},
      {"loading_s", loading.count()},
      {"tokens_per_second", static_cast<double>(link.world_size() * bound.tokens * options.accumulation) / median},
      {"arena_bytes", arena},
      {"peak_bytes", used},
  };
  if (activity) line.update({{"idle_fractions", idle}, {"idle_fraction", median_of(idle)}});
  fmt::print("{}\n", line.dump());
}

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  using namespace qshard;
  bench::Options options;
  CLI::App app("One rank of a measured FSDP-QLoRA step; bench/sharded_step/run starts it");
  app.add_option("--model", options.model, "llama-2-70b, llama-2-7b or llama-3-8b")
      ->check(CLI::IsMember({"llama-2-70b", "llama-2-7b", "llama-3-8b"}));
  app.add_option("--layers", options.layers, "Decoder layers; 0: all of the model");
  app.add_option("--seq", options.length, "Tokens a row")->check(CLI::PositiveNumber);
  app.add_option("--mbs", options.rows, "Rows a rank")->check(CLI::PositiveNumber);
  app.add_option("--lora-r", options.r, "Rank of the adapters")->check(CLI::PositiveNumber);
  app.add_option("--dropout", options.dropout, "Of the adapters");
  app.add_option("--checkpointing", options.checkpointing, "on, off or auto")
      ->check(CLI::IsMember({"on", "off", "auto"}));
  app.add_option("--offloading", options.offloading, "Layers' inputs wait in host memory: on, off or auto")
      ->check(CLI::IsMember({"on", "off", "auto"}));
  app.add_option("--sharding", options.sharding, "FULL_SHARD, SHARD_GRAD_OP, NO_SHARD or HYBRID_SHARD");
  app.add_option("--shard-group", options.shard_group, "Ranks of a group under HYBRID_SHARD");
  app.add_option("--transport", options.transport, "peer, nccl or host");
  app.add_flag("--offload", options.offload, "Keep the frozen shards in host memory");
  app.add_option("--budget-gib", options.budget_gib, "Memory of the GPU that the run may use; 0: what is free");
  app.add_option("--steps", options.steps, "Steps; the first two do not count")->check(CLI::PositiveNumber);
  app.add_option("--dtype", options.dtype, "Of activations and adapters: bfloat16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float32"}));
  app.add_option("--moments", options.moments, "How AdamW keeps them: bf16 (the adapters' dtype) or 8bit")
      ->check(CLI::IsMember({"bf16", "8bit"}));
  app.add_flag("--products-alone", options.products_alone,
               "Time the products of a step with the frozen weights and nothing else, on one GPU");
  app.add_option("--accumulation", options.accumulation, "Batches a step")->check(CLI::PositiveNumber);
  app.add_flag("--hash", options.hash, "Print a hash of the adapter after the last step, to compare runs to the bit");
  app.add_flag("--idle", options.idle,
               "Print idle_fraction, the part of a step in which the GPU does nothing, from CUPTI's records");
  app.add_option("--leave-free-gib", options.leave_free_gib,
                 "Measure nothing: hold the memory of all GPUs but so much until the standard input ends");
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.leave_free_gib > 0) {
      bench::hold_memory(options.leave_free_gib);
      return 0;
    }
    if (options.products_alone) {
      bench::measure_products(options);
      return 0;
    }
    RankLink link = RankLink::connect(read_rank_info(environment_variable), {.version = "sharded_step"});
    tell_failures(link, [&] { bench::measure(options, link); });
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
