// A benchmark program with six short rows, in which one can be slowed down: built with -DEXTRA_PERCENT=5, the row
// `mix` does 5 % more steps.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#ifndef EXTRA_PERCENT
#define EXTRA_PERCENT 0
#endif

namespace {

std::uint64_t mixed(std::uint64_t x) {
  x ^= x >> 33;
  x *= 0xFF51AFD7ED558CCDULL;
  return x ^ (x >> 29);
}

void mix(benchmark::State& state) {
  for (auto _ : state) {
    std::uint64_t x = 1;
    for (int i = 0; i < 20000 * (100 + EXTRA_PERCENT) / 100; ++i) x = mixed(x + i);
    benchmark::DoNotOptimize(x);
  }
}
BENCHMARK(mix);

void divide(benchmark::State& state) {
  for (auto _ : state) {
    double x = 1.0;
    for (int i = 1; i < 5000; ++i) x = x / 1.0001 + 1.0 / i;
    benchmark::DoNotOptimize(x);
  }
}
BENCHMARK(divide);

void sum(benchmark::State& state) {
  static const std::vector<float> values(1 << 14, 1.5F);
  for (auto _ : state) benchmark::DoNotOptimize(std::accumulate(values.begin(), values.end(), 0.0F));
}
BENCHMARK(sum);

void sort(benchmark::State& state) {
  for (auto _ : state) {
    std::vector<std::uint64_t> values(2000);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = mixed(i);
    std::sort(values.begin(), values.end());
    benchmark::DoNotOptimize(values.data());
  }
}
BENCHMARK(sort);

void root(benchmark::State& state) {
  for (auto _ : state) {
    double x = 0.0;
    for (int i = 1; i < 8000; ++i) x += std::sqrt(x + i);
    benchmark::DoNotOptimize(x);
  }
}
BENCHMARK(root);

void text(benchmark::State& state) {
  for (auto _ : state) {
    std::string all;
    for (int i = 0; i < 1500; ++i) all += std::to_string(i);
    benchmark::DoNotOptimize(all.data());
  }
}
BENCHMARK(text);

}  // namespace

BENCHMARK_MAIN();
