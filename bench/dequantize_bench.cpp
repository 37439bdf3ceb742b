// Dequantizing one NF4 weight on the CPU reference, all cores; dtype is that of the result. bytes_per_second counts
// what must move: codes and scales read once, the weight written once; items_per_second counts elements.

#include <benchmark/benchmark.h>

#include "bench/weight_case.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

void run(benchmark::State& state, const WeightCase& setting) {
  reference::QuantizeOptions options;
  options.blocksize = setting.blocksize;
  options.double_quant = setting.nested;
  const Weight4bit weight = reference::quantize(normal_weight(setting).view(), options, "weight");
  Tensor out(setting.dtype, {setting.n, setting.k});
  for (auto _ : state) {
    reference::dequantize(weight.view(), setting.dtype, out.bytes());
    benchmark::DoNotOptimize(out.bytes().data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * setting.n * setting.k);
  state.SetBytesProcessed(state.iterations() * (std::ssize(out.bytes()) + stored_bytes(weight)));
}

[[maybe_unused]] const bool registered = [] {
  for (const WeightCase& setting : weight_cases()) {
    benchmark::RegisterBenchmark(benchmark_name("dequantize", "reference", setting).c_str(),
                                 [setting](benchmark::State& state) { run(state, setting); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace qshard::bench
