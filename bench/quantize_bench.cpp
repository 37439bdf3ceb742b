// Quantizing one weight to NF4 on the CPU reference, all cores. bytes_per_second counts what must move: the weight read
// once, codes and scales written once; items_per_second counts elements.

#include <benchmark/benchmark.h>

#include "bench/weight_case.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

void run(benchmark::State& state, const WeightCase& setting) {
  const Tensor weight = normal_weight(setting);
  reference::QuantizeOptions options;
  options.blocksize = setting.blocksize;
  options.double_quant = setting.nested;
  Weight4bit quantized;
  for (auto _ : state) {
    quantized = reference::quantize(weight.view(), options, "weight");
    benchmark::DoNotOptimize(quantized.codes.data());
  }
  state.SetItemsProcessed(state.iterations() * setting.n * setting.k);
  state.SetBytesProcessed(state.iterations() * (std::ssize(weight.bytes()) + stored_bytes(quantized)));
}

[[maybe_unused]] const bool registered = [] {
  for (const WeightCase& setting : weight_cases()) {
    benchmark::RegisterBenchmark(benchmark_name("quantize", "reference", setting).c_str(),
                                 [setting](benchmark::State& state) { run(state, setting); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace qshard::bench
