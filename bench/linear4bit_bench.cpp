// A frozen NF4 linear layer on the CPU reference, all cores: dequantize once, then the product with `rows` tokens, in
// float. `n` output and `k` input features; direction forward is y = x W^T, backward dx = dy W. Shapes are those of
// examples/adverbs (hidden 256, intermediate 704) with one piece of tokens and with a training step's. items_per_second
// counts floating-point operations of the product, 2 rows n k.

#include <benchmark/benchmark.h>

#include "bench/weight_case.h"
#include "reference/linear4bit.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

void run(benchmark::State& state, const WeightCase& setting, std::int64_t rows, bool backward) {
  QuantizationOptions options;
  options.blocksize = setting.blocksize;
  options.double_quant = setting.nested;
  const Weight4bit weight = reference::quantize(normal_weight(setting).view(), options, "weight");
  const reference::LinearWeights<float> weights{weight.view(), {}, {}};
  const reference::Matrix<float> in = reference::Matrix<float>::Ones(rows, backward ? setting.n : setting.k);
  reference::Matrix<float> out;
  for (auto _ : state) {
    out = backward ? reference::linear4bit_backward(weights, DType::f32, in)
                   : reference::linear4bit_forward(weights, DType::f32, in);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * 2 * rows * setting.n * setting.k);
}

[[maybe_unused]] const bool registered = [] {
  for (const auto& [n, k] : {std::pair<std::int64_t, std::int64_t>{704, 256}, {256, 704}, {256, 256}}) {
    for (const std::int64_t rows : {128, 2048}) {
      for (const bool backward : {false, true}) {
        const WeightCase setting{n, k, 64, DType::bf16, true};
        const std::string name =
            fmt::format("linear4bit/provider:reference/rows:{}/n:{}/k:{}/blocksize:64/dtype:f32/nested:1/direction:{}",
                        rows, n, k, backward ? "backward" : "forward");
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=](benchmark::State& state) { run(state, setting, rows, backward); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace qshard::bench
