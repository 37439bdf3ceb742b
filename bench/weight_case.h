#pragma once

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include "core/tensor/tensor.h"
#include "core/tensor/weight4bit.h"

namespace qshard::bench {

/// One weight to measure quantization with: n output features, k input features.
struct WeightCase {
  std::int64_t n;
  std::int64_t k;
  int blocksize;
  DType dtype;
  bool nested;
};

/// "stem/provider:reference/n:4096/k:4096/blocksize:64/dtype:bf16/nested:1".
inline std::string benchmark_name(std::string_view stem, std::string_view provider, const WeightCase& setting) {
  std::string_view dtype = "f32";
  if (setting.dtype == DType::bf16) dtype = "bf16";
  if (setting.dtype == DType::f16) dtype = "f16";
  return fmt::format("{}/provider:{}/n:{}/k:{}/blocksize:{}/dtype:{}/nested:{}", stem, provider, setting.n, setting.k,
                     setting.blocksize, dtype, setting.nested ? 1 : 0);
}

/// The cases that every quantization benchmark registers.
inline std::vector<WeightCase> weight_cases() {
  std::vector<WeightCase> cases;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) cases.push_back({4096, 4096, 64, dtype, false});
  for (const std::int64_t size : {512, 1024, 2048}) cases.push_back({size, size, 64, DType::bf16, true});
  for (const int blocksize : {32, 64, 256, 4096}) cases.push_back({4096, 4096, blocksize, DType::bf16, true});
  return cases;
}

/// Registers run(state, setting) of the reference for each of weight_cases(), in milliseconds of elapsed time. True, so
/// that a constant's initializer can call it.
template <typename Run>
bool register_weight_cases(std::string_view stem, const Run& run) {
  for (const WeightCase& setting : weight_cases()) {
    benchmark::RegisterBenchmark(benchmark_name(stem, "reference", setting).c_str(),
                                 [run, setting](benchmark::State& state) { run(state, setting); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}

/// Normally distributed, like the weights of a language model; the same on every run.
inline Tensor normal_weight(const WeightCase& setting) {
  std::mt19937_64 generator(1);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<float> values(static_cast<std::size_t>(setting.n * setting.k));
  for (float& value : values) value = normal(generator);
  return from_floats(values, setting.dtype, {setting.n, setting.k});
}

/// Bytes of codes and scales together.
inline std::int64_t stored_bytes(const Weight4bit& weight) {
  return static_cast<std::int64_t>(weight.codes.size() + weight.absmax.size() * sizeof(float) +
                                   weight.absmax_codes.size() + weight.nested_absmax.size() * sizeof(float));
}

}  // namespace qshard::bench
