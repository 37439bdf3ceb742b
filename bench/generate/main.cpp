// Greedy generation with a 4-bit model of random weights and a known model's shape, made on the device. Prints a JSON
// line: tokens a second with and without the prompt's pass, memory, and the share of a token's time that reading the
// weights at the measured read ceiling takes. bench/generate/run starts it, and the peer.
#include <algorithm>
#include <chrono>
#include <functional>
#include <random>

#include <CLI/CLI.hpp>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/gpu/ceilings.h"
#include "bench/model_shape.h"
#include "bench/sharded_step/gpu_activity.h"
#include "core/base/error.h"
#include "core/launch/rank_info.h"
#include "core/launch/rank_link.h"
#include "core/model/module_table.h"
#include "optimized/device/cuda_check.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard::bench {
namespace {

struct Options {
  std::string model = "llama-3-8b";
  std::int64_t layers = 0;
  std::int64_t rows = 1;
  std::int64_t prompt = 128;
  std::int64_t tokens = 128;
  std::string adapters = "none";
  int r = 64;
  std::string graph = "on";
  int repetitions = 5;
  bool kernels = false;
};

EngineOptions engine_options(const Options& options) {
  EngineOptions engine;
  engine.sharding = ShardingStrategy::no_shard;
  engine.quantization.quant_storage = DType::bf16;
  engine.dtype = engine.compute_dtype = DType::bf16;
  engine.lora.r = options.r;
  if (options.adapters == "none") {
    // There is always one adapter: the smallest.
    engine.lora.r = 1;
    engine.lora.target_modules = {"model.layers.0.self_attn.k_proj"};
  }
  return engine;
}

/// What one token must read: codes, scales (double quantization of blocks of 64) and the head.
double weight_bytes(const ModelConfig& config) {
  double elements = 0;
  for (const LinearModule& module : layer_modules(config)) elements += static_cast<double>(module.out * module.in);
  elements *= static_cast<double>(config.num_hidden_layers);
  const double scales = elements / 64 * (1 + 4.0 / 256);
  return elements / 2 + scales + 2.0 * static_cast<double>(config.vocab_size * config.hidden_size);
}

std::vector<std::vector<std::int32_t>> random_prompts(const Options& options, std::int64_t vocab) {
  std::mt19937 random(1);
  std::uniform_int_distribution<std::int32_t> token(0, static_cast<std::int32_t>(vocab) - 1);
  std::vector<std::vector<std::int32_t>> prompts(static_cast<std::size_t>(options.rows));
  for (auto& prompt : prompts) {
    for (std::int64_t t = 0; t < options.prompt; ++t) prompt.push_back(token(random));
  }
  return prompts;
}

struct Times {
  double prompt;  // until the first new token
  double all;
};

Times generate(Decoder& decoder, const std::vector<std::vector<std::int32_t>>& prompts, std::int64_t tokens) {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  std::vector<std::int32_t> next = decoder.start_greedily(prompts);
  const double prompt = seconds();
  for (std::int64_t t = 1; t < tokens; ++t) next = decoder.next_greedily(next);
  return {prompt, seconds()};
}

double median(std::vector<Times> times, double (*of)(const Times&)) {
  std::sort(times.begin(), times.end(), [&](const Times& a, const Times& b) { return of(a) < of(b); });
  return of(times[times.size() / 2]);
}

/// Microseconds of a token by kernel.
nlohmann::json token_kernel_times(Decoder& decoder, const std::vector<std::vector<std::int32_t>>& prompts) {
  constexpr int kTokens = 20;
  std::vector<std::int32_t> next = decoder.start_greedily(prompts);
  for (int t = 0; t < 3; ++t) next = decoder.next_greedily(next);  // from the second one on a graph
  const GpuActivity activity;
  TimeSpan window{activity.now()};
  for (int t = 0; t < kTokens; ++t) next = decoder.next_greedily(next);
  window.end = activity.now();
  return kernel_times(window, activity.busy(), kTokens);
}

void measure(const Options& options, RankLink& link) {
  const ModelConfig config = model_shape(options.model, options.layers);
  const DecoderBound bound{options.rows, options.prompt + options.tokens, options.graph == "on"};
  int device = 0;
  QSHARD_CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp properties{};
  QSHARD_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  char bus_id[32] = {};
  QSHARD_CUDA_CHECK(cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, device));
  const Ceilings ceilings = measure_ceilings(Clocks(bus_id), false);
  const auto source = optimized::make_random_source(0.02, 1234);
  const auto engine = optimized::make_sharded_engine(config, *source, engine_options(options), {{}, {}, bound}, link);
  const auto decoder = engine->make_decoder(bound.rows, bound.tokens);
  const auto prompts = random_prompts(options, config.vocab_size);

  generate(*decoder, prompts, std::min<std::int64_t>(8, options.tokens));
  std::vector<Times> times;
  std::vector<double> seconds;
  for (int i = 0; i < options.repetitions; ++i) {
    times.push_back(generate(*decoder, prompts, options.tokens));
    seconds.push_back(times.back().all);
  }
  const double all = median(times, [](const Times& of) { return of.all; });
  const double prompt = median(times, [](const Times& of) { return of.prompt; });
  const double token = median(times, [](const Times& of) { return of.all - of.prompt; }) /
                       static_cast<double>(std::max<std::int64_t>(1, options.tokens - 1));
  std::size_t free = 0;
  std::size_t total = 0;
  QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto new_tokens = static_cast<double>(options.rows * options.tokens);
  nlohmann::json line = {
      {"provider", "qshard"},
      {"model", options.model},
      {"layers", config.num_hidden_layers},
      {"rows", options.rows},
      {"prompt", options.prompt},
      {"tokens", options.tokens},
      {"adapters", options.adapters},
      {"r", options.adapters == "none" ? 0 : options.r},
      {"graph", options.graph},
      {"device", properties.name},
      {"seconds", seconds},
      {"prompt_s", prompt},
      {"token_s", token},
      {"tokens_per_second", new_tokens / all},
      {"decode_tokens_per_second", static_cast<double>(options.rows) / token},
      {"read_bytes_per_second", ceilings.read},
      {"read_share", weight_bytes(config) / ceilings.read / token},
      {"arena_bytes", engine->peak_bytes_by_rank().front()},
      {"peak_bytes", total - free},
  };
  if (options.kernels) line["kernels"] = token_kernel_times(*decoder, prompts);
  fmt::print("{}\n", line.dump());
}

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  using namespace qshard;
  bench::Options options;
  CLI::App app("Measured greedy generation on one GPU; bench/generate/run starts it");
  app.add_option("--model", options.model, "llama-2-70b, llama-2-7b or llama-3-8b")
      ->check(CLI::IsMember({"llama-2-70b", "llama-2-7b", "llama-3-8b"}));
  app.add_option("--layers", options.layers, "Decoder layers; 0: all of the model");
  app.add_option("--rows", options.rows, "Prompts")->check(CLI::PositiveNumber);
  app.add_option("--prompt", options.prompt, "Tokens of a prompt")->check(CLI::PositiveNumber);
  app.add_option("--tokens", options.tokens, "New tokens a row")->check(CLI::PositiveNumber);
  app.add_option("--adapters", options.adapters, "none, or all-linear")->check(CLI::IsMember({"none", "all-linear"}));
  app.add_option("--lora-r", options.r, "Rank of the adapters")->check(CLI::PositiveNumber);
  app.add_option("--graph", options.graph, "on, or off: without CUDA graphs")->check(CLI::IsMember({"on", "off"}));
  app.add_option("--repetitions", options.repetitions, "Measured runs")->check(CLI::PositiveNumber);
  app.add_flag("--kernels", options.kernels, "Print microseconds of a token by kernel, too, from CUPTI's records");
  CLI11_PARSE(app, argc, argv);
  try {
    RankLink link = RankLink::connect(RankInfo{}, {.version = "generate"});
    bench::measure(options, link);
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
