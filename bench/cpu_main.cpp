// main of qshard_bench: Google Benchmark's own, with the processor and, under --ceilings, what this machine reaches at
// best in the context of the results, so that figures can show a fraction of it.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include "core/base/processor.h"
#include "reference/matrix_product.h"
#include "reference/parallel.h"

namespace qshard::bench {
namespace {

constexpr std::int64_t kCopyBytes = std::int64_t{256} << 20;  // many times any cache
constexpr std::int64_t kProductSize = 1024;
constexpr int kRepetitions = 7;

// Median seconds of `work` after one run to warm up.
template <typename Work>
double median_seconds(const Work& work) {
  work();
  std::vector<double> seconds;
  for (int i = 0; i < kRepetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRepetitions / 2, seconds.end());
  return seconds[kRepetitions / 2];
}

// Bytes read plus bytes written by memcpy on all cores, a second.
double copy_bytes_per_second() {
  std::vector<char> from(kCopyBytes, 1);
  std::vector<char> to(kCopyBytes, 2);
  const double seconds = median_seconds([&] {
    reference::parallel_for(kCopyBytes, std::int64_t{1} << 20, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
    });
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  });
  return 2.0 * static_cast<double>(kCopyBytes) / seconds;
}

// Operations a second of a float product of two square matrices of random values, on all cores.
double product_flops_per_second() {
  const reference::Matrix<float> a = reference::Matrix<float>::Random(kProductSize, kProductSize);
  const reference::Matrix<float> b = reference::Matrix<float>::Random(kProductSize, kProductSize);
  const double seconds = median_seconds([&] { benchmark::DoNotOptimize(reference::times(a, b, DType::f32)); });
  return 2.0 * static_cast<double>(kProductSize * kProductSize * kProductSize) / seconds;
}

// Takes --ceilings out of the arguments; true where it was there.
bool take_flag(int& argc, char** argv, std::string_view flag) {
  char** end = std::remove_if(argv + 1, argv + argc, [flag](const char* argument) { return argument == flag; });
  const bool found = end != argv + argc;
  argc = static_cast<int>(end - argv);
  return found;
}

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  using namespace qshard::bench;
  benchmark::AddCustomContext("device", qshard::processor_name());
  benchmark::AddCustomContext("build_type", QSHARD_BUILD_TYPE);
  if (take_flag(argc, argv, "--ceilings")) {
    benchmark::AddCustomContext("copy_bytes_per_second", fmt::format("{:.6g}", copy_bytes_per_second()));
    benchmark::AddCustomContext("product_flops_per_second", fmt::format("{:.6g}", product_flops_per_second()));
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
