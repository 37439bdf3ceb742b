// One optimizer step of the reference on the example model, frozen weights in NF4 with double quantization.
#include <filesystem>
#include <random>

#include <benchmark/benchmark.h>

#include "reference/sharded_engine.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kRowTokens = 128;

// Random bytes as tokens, all of them learned from.
TokenBatch random_batch(std::int64_t rows, std::uint64_t first_row, std::mt19937& random) {
  std::uniform_int_distribution<std::int32_t> byte(0, 255);
  TokenBatch batch;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t t = 0; t < kRowTokens; ++t) batch.input_ids.push_back(byte(random));
    batch.offsets.push_back(batch.tokens());
    batch.row_ids.push_back(first_row + static_cast<std::uint64_t>(row));
  }
  batch.labels = batch.input_ids;
  return batch;
}

void sharded_step(benchmark::State& state) {
  EngineOptions options;
  options.world_size = static_cast<int>(state.range(0));
  const std::int64_t rows = state.range(1);
  options.quantization.quant_storage = DType::bf16;
  const auto model = std::filesystem::path(QSHARD_SOURCE_DIR) / "examples" / "adverbs" / "model";
  const auto engine = make_sharded_engine(HfCheckpoint::open(model), options);
  std::mt19937 random(1);
  std::vector<TokenBatch> batches;
  for (int rank = 0; rank < options.world_size; ++rank) {
    batches.push_back(random_batch(rows, static_cast<std::uint64_t>(rank * rows), random));
  }
  std::int64_t step = 0;
  for (auto _ : state) {
    ++step;
    benchmark::DoNotOptimize(engine->train_step({batches}, 1e-3, step));
  }
  state.counters["tokens_per_second"] = benchmark::Counter(
      static_cast<double>(step * rows * kRowTokens * options.world_size), benchmark::Counter::kIsRate);
}

BENCHMARK(sharded_step)
    ->Name("sharded_step/provider:reference/model:adverbs")
    ->ArgNames({"world", "rows"})
    ->Args({1, 1})
    ->Args({1, 4})
    ->Args({2, 4})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace qshard::reference
