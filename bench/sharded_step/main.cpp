// One rank of a measured FSDP-QLoRA step on random weights of a model's shape, made on the device. Prints a JSON line
// on rank 0: seconds of each step, tokens a second, memory. bench/sharded_step/run starts the ranks, and the peer.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/model_shape.h"
#include "bench/sharded_step/frozen_products.h"
#include "bench/sharded_step/measured_step.h"
#include "core/base/error.h"
#include "core/launch/rank_info.h"
#include "core/launch/rank_link.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"

namespace qshard::bench {
namespace {

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

void measure_products(const StepOptions& options) {
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

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  using namespace qshard;
  bench::StepOptions options;
  double leave_free_gib = 0;
  bool products_alone = false;
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
  app.add_flag("--products-alone", products_alone,
               "Time the products of a step with the frozen weights and nothing else, on one GPU");
  app.add_option("--accumulation", options.accumulation, "Batches a step")->check(CLI::PositiveNumber);
  app.add_flag("--hash", options.hash, "Print a hash of the adapter after the last step, to compare runs to the bit");
  app.add_flag("--idle", options.idle,
               "Print idle_fraction, the part of a step in which the GPU does nothing, from CUPTI's records");
  app.add_flag("--kernels", options.kernels, "Print microseconds of a step by kernel, too");
  app.add_option("--leave-free-gib", leave_free_gib,
                 "Measure nothing: hold the memory of all GPUs but so much until the standard input ends");
  CLI11_PARSE(app, argc, argv);
  try {
    if (leave_free_gib > 0) {
      bench::hold_memory(leave_free_gib);
      return 0;
    }
    if (products_alone) {
      bench::measure_products(options);
      return 0;
    }
    RankLink link = RankLink::connect(read_rank_info(environment_variable), {.version = "sharded_step"});
    tell_failures(link, [&] {
      const nlohmann::json line = bench::measure_step(options, link);
      if (link.is_first()) fmt::print("{}\n", line.dump());
    });
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
