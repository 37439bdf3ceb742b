// Dequantizing one NF4 weight on the CPU reference, all cores; dtype is that of the result. bytes_per_second counts
// what must move: codes and scales read once, the weight written once; items_per_second counts elements.

#include <benchmark/benchmark.h>

#include "bench/weight_case.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

void run(benchmark::State& state, const WeightCase& setting) {
  QuantizationOptions options;
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

[[maybe_unused]] const bool registered = register_weight_cases("dequantize", run);

}  // namespace
}  // namespace qshard::bench
