#include "bench/sharded_step/measured_step.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>

#include <cuda_runtime_api.h>

#include "bench/model_shape.h"
#include "bench/sharded_step/gpu_activity.h"
#include "core/base/error.h"
#include "core/base/fnv_hash.h"
#include "optimized/device/cuda_check.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard::bench {
namespace {

TokenBatch random_batch(const StepOptions& options, std::int64_t vocab, int rank) {
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

/// The first of `steps` that counts: two are for warming up, where there are more.
std::ptrdiff_t first_counted(std::ptrdiff_t steps) {
  return std::min<std::ptrdiff_t>(2, steps - 1);
}

/// What was recorded of the steps.
nlohmann::json summary_of(const std::vector<TimeSpan>& steps, const std::vector<TimeSpan>& busy, bool kernels) {
  std::vector<double> idle;
  idle.reserve(steps.size());
  for (const TimeSpan& step : steps) idle.push_back(idle_fraction(step, busy));
  nlohmann::json summary{{"idle_fractions", idle}, {"idle_fraction", median_of(idle)}};
  const std::ptrdiff_t first = first_counted(std::ssize(steps));
  if (kernels) {
    summary["kernels"] = kernel_times({steps[static_cast<std::size_t>(first)].begin, steps.back().end}, busy,
                                      static_cast<int>(std::ssize(steps) - first));
  }
  return summary;
}

ShardingStrategy sharding_of(const std::string& name) {
  for (const auto strategy : {ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op, ShardingStrategy::no_shard,
                              ShardingStrategy::hybrid_shard}) {
    if (to_string(strategy) == name) return strategy;
  }
  fail_input("--sharding: {} is none of FULL_SHARD, SHARD_GRAD_OP, NO_SHARD, HYBRID_SHARD", name);
}

}  // namespace

std::int64_t used_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(total - free);
}

Transport transport_of(const std::string& name) {
  for (const auto transport : {Transport::peer, Transport::nccl, Transport::host}) {
    if (to_string(transport) == name) return transport;
  }
  fail_input("--transport: {} is none of peer, nccl, host", name);
}

double median_of(const std::vector<double>& values) {
  std::vector<double> sorted(values.begin() + first_counted(std::ssize(values)), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

std::string device_name() {
  cudaDeviceProp properties{};
  QSHARD_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
}

nlohmann::json measure_step(const StepOptions& options, RankLink& link) {
  const ModelConfig config = model_shape(options.model, options.layers);
  EngineOptions engine_options;
  engine_options.world_size = link.world_size();
  engine_options.sharding = sharding_of(options.sharding);
  engine_options.shard_group = options.shard_group;
  engine_options.transport = options.offload ? Transport::host : transport_of(options.transport);
  engine_options.offload = options.offload;
  engine_options.quantization.quant_storage = options.storage;
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
  if (options.idle || options.kernels) activity.emplace();
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
  nlohmann::json recorded = nlohmann::json::object();
  if (activity) recorded = summary_of(windows, activity->busy(), options.kernels);
  const std::int64_t used = used_bytes();
  const std::int64_t arena = engine->peak_bytes_by_rank().front();
  const std::uint64_t hash = options.hash ? hash_of(engine->adapter()) : 0;
  link.barrier();  // the others have read this rank's adapters
  if (!link.is_first()) return nullptr;
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
      {"storage", torch_name(options.storage)},
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
  line.update(recorded);
  return line;
}

}  // namespace qshard::bench
