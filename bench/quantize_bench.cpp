// Quantizing one weight to NF4 on the CPU reference, all cores. bytes_per_second counts what must move: the weight read
// once, codes and scales written once; items_per_second counts elements.

#include <benchmark/benchmark.h>

#include "bench/weight_case.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

void run(benchmark::State& state, const WeightCase& setting) {
  const Tensor weight = normal_weight(setting);
  QuantizationOptions options;
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

[[maybe_unused]] const bool registered = register_weight_cases("quantize", run);

}  // namespace
}  // namespace qshard::bench
