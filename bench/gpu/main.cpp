#include <algorithm>
#include <map>

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <nvtx3/nvtx3.hpp>

#include "bench/gpu/ceilings.h"
#include "bench/gpu/options.h"
#include "bench/gpu/row.h"
#include "bench/gpu/step_kernel.h"
#include "bench/gpu/table.h"
#include "core/base/error.h"

namespace qshard::bench {
namespace {

using Providers = std::vector<std::unique_ptr<Provider>>;
using Rows = std::vector<std::unique_ptr<Row>>;
using StepKernelRows = std::vector<std::unique_ptr<StepKernelRow>>;

/// Prints one line for each finished row; the table comes at the end, all numbers are in the JSON file.
class ProgressReporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& /*context*/) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    if (runs.empty()) return;
    const Run& first = runs.front();
    fmt::print(stderr, "{}  {}\n", first.error_occurred ? "FAIL" : " ok ",
               first.error_occurred ? fmt::format("{}: {}", first.run_name.function_name, first.error_message)
                                    : first.run_name.function_name);
  }
};

Providers make_providers(const Options& options) {
  Providers providers;
  for (const std::string& name : options.providers) {
    if (name == "qshard") providers.push_back(make_qshard_provider());
    if (name == "qshard_portable") providers.push_back(make_qshard_provider(true));
    if (name == "reference") providers.push_back(make_reference_provider());
    if (name == "cublas") providers.push_back(make_cublas_provider());
    if (name == "ladder") {
      for (auto& step : make_ladder_providers()) providers.push_back(std::move(step));
    }
    if (name == "bitsandbytes") {
      const std::string path = find_bitsandbytes(options.bitsandbytes);
      if (path.empty()) {
        fmt::print(stderr, "left out: bitsandbytes (not found; pip install bitsandbytes, or --bitsandbytes PATH)\n");
      } else {
        providers.push_back(make_bitsandbytes_provider(path));
      }
    }
  }
  for (const std::string& path : options.plugins) providers.push_back(make_plugin_provider(path));
  for (const std::string& name : options.providers) {
    const bool is_there = is_known_provider(name) || std::any_of(providers.begin(), providers.end(),
                                                                 [&](const auto& p) { return p->name() == name; });
    if (!is_there) fail_input("--provider {}: neither a known provider nor the name of a plug-in that was given", name);
  }
  return providers;
}

Rows make_rows(const Options& options, const Providers& providers) {
  Rows rows;
  std::map<std::string, int> left_out;  // provider and reason -> how many rows
  for (const qshard_problem& problem : problems_of(options)) {
    for (const auto& provider : providers) {
      const std::string reason = provider->unsupported(problem);
      if (reason.empty()) {
        rows.push_back(std::make_unique<Row>(problem, *provider, options.manner, options.batch_seconds));
      } else {
        ++left_out[fmt::format("{} ({})", provider->name(), reason)];
      }
    }
  }
  for (const auto& [what, count] : left_out) fmt::print(stderr, "left out: {} rows of {}\n", count, what);
  return rows;
}

StepKernelRows make_step_kernel_rows(const Options& options) {
  StepKernelRows rows;
  for (StepKernel& kernel : step_kernels_of(options)) {
    rows.push_back(std::make_unique<StepKernelRow>(std::move(kernel), options.batch_seconds));
  }
  return rows;
}

void set_clock_counters(benchmark::State& state, const Sample& sample) {
  auto& counters = state.counters;
  counters["calls"] = sample.calls;
  if (sample.clocks.sm_mhz > 0) {
    counters["clock_sm_mhz"] = sample.clocks.sm_mhz;
    counters["power_limited"] = sample.clocks.power_limited() ? 1 : 0;
    counters["throttled"] = sample.clocks.throttled() ? 1 : 0;
  }
}

void set_counters(benchmark::State& state, const StepKernelRow& row, const Sample& sample, const Ceilings& ceilings) {
  state.counters["bytes_per_second"] = row.bytes() / sample.seconds;
  state.counters["copy_fraction"] = row.bytes() / sample.seconds / ceilings.copy;
  if (row.flops() > 0) {
    state.counters["flops_per_second"] = row.flops() / sample.seconds;
    if (ceilings.product > 0) state.counters["product_fraction"] = row.flops() / sample.seconds / ceilings.product;
  }
  set_clock_counters(state, sample);
}

void set_counters(benchmark::State& state, const Row& row, const Sample& sample, const Ceilings& ceilings) {
  const Traffic traffic = row.traffic();
  auto& counters = state.counters;
  counters["bytes_per_second"] = traffic.bytes() / sample.seconds;
  counters["copy_fraction"] = traffic.bytes() / sample.seconds / ceilings.copy;
  counters["weight_bytes"] = traffic.weight_bytes;
  counters["weight_copy_fraction"] = traffic.weight_bytes / sample.seconds / ceilings.copy;
  if (traffic.flops > 0) {
    counters["flops_per_second"] = traffic.flops / sample.seconds;
    if (ceilings.product > 0) counters["product_fraction"] = traffic.flops / sample.seconds / ceilings.product;
    counters["worst_over_bound"] = row.worst_difference();
  }
  set_clock_counters(state, sample);
  if (sample.enqueue_limited) counters["enqueue_limited"] = 1;
  if (!row.fills_cache()) counters["cache_not_filled"] = 1;
  if (sample.joules > 0) {
    counters["joules"] = sample.joules;
    counters["watts"] = sample.joules / sample.seconds;
  }
}

/// The row whose buffers are on the device.
struct Current {
  const void* row = nullptr;
  std::function<void()> release = [] {};
};

template <typename AnyRow>
void run_repetition(benchmark::State& state, AnyRow& row, Current& current, Session& session,
                    const Ceilings& ceilings) {
  if (current.row != &row) {
    current.release();
    current = {&row, [&row] { row.release(); }};
  }
  while (state.KeepRunning()) {
    if (!row.error.empty()) {
      state.SkipWithError(row.error.c_str());
      break;
    }
    try {
      const Sample sample = row.measure(session);
      state.SetIterationTime(sample.seconds);
      set_counters(state, row, sample, ceilings);
    } catch (const std::exception& error) {
      row.error = error.what();
      state.SkipWithError(error.what());
      break;
    }
  }
}

template <typename AnyRow>
void register_rows(const std::vector<std::unique_ptr<AnyRow>>& rows, int repetitions, Current& current,
                   Session& session) {
  for (const auto& row : rows) {
    benchmark::RegisterBenchmark(row->name().c_str(),
                                 [&current, &session, r = row.get()](benchmark::State& state) {
                                   run_repetition(state, *r, current, session, session.ceilings);
                                 })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond)
        ->Iterations(1)
        ->Repetitions(repetitions);
  }
}

template <typename AnyRow>
bool any_failed(const std::vector<std::unique_ptr<AnyRow>>& rows) {
  return std::any_of(rows.begin(), rows.end(), [](const auto& row) { return !row->error.empty(); });
}

void add_context(const Session& session) {
  const auto number = [](double value) { return fmt::format("{:.6g}", value); };
  benchmark::AddCustomContext("device", session.device.name);
  benchmark::AddCustomContext("compute_capability", session.device.compute);
  benchmark::AddCustomContext("driver", session.device.driver);
  benchmark::AddCustomContext("l2_bytes", std::to_string(session.device.l2_bytes));
  benchmark::AddCustomContext("clock_sm_mhz", std::to_string(session.ceilings.clocks.sm_mhz));
  benchmark::AddCustomContext("clock_mem_mhz", std::to_string(session.ceilings.clocks.memory_mhz));
  benchmark::AddCustomContext("copy_bytes_per_second", number(session.ceilings.copy));
  benchmark::AddCustomContext("read_bytes_per_second", number(session.ceilings.read));
  benchmark::AddCustomContext("write_bytes_per_second", number(session.ceilings.write));
  benchmark::AddCustomContext("product_flops_per_second", number(session.ceilings.product));
  benchmark::AddCustomContext("data", "random, near normal; weights of deviation 0.02, activations 1");
}

/// Prints what was throttled: numbers taken then are of the cooling, not of the kernels.
void warn_of_throttling(const Rows& rows) {
  for (const auto& row : rows) {
    for (const Sample& sample : row->samples()) {
      if (!sample.clocks.throttled()) continue;
      fmt::print(stderr, "warning: {} ran while the GPU was throttled (thermal or hardware slowdown)\n", row->name());
      break;
    }
  }
}

/// Prints whose times are the host's.
void warn_of_slow_enqueuing(const Rows& rows) {
  for (const auto& row : rows) {
    const auto limited = std::count_if(row->samples().begin(), row->samples().end(),
                                       [](const Sample& sample) { return sample.enqueue_limited; });
    if (limited == 0) continue;
    fmt::print(stderr, "warning: {}: the host enqueued slower than the GPU worked in {} of {} repetitions\n",
               row->name(), limited, row->samples().size());
  }
}

/// What can be typed again to get the same rows, whatever this machine's folders are called.
std::string command_of(const std::vector<std::string>& arguments) {
  std::string command = "qshard bench --device cuda";
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!argument.starts_with("--benchmark_out") && !argument.starts_with("--benchmark_context")) {
      command += " " + argument;
    }
  }
  return command;
}

int run(std::vector<std::string> arguments) {
  const std::string command = command_of(arguments);
  const std::optional<Options> options = parse_options(arguments);
  if (!options) return 0;
  const std::string no_gpu = why_no_gpu();
  if (!no_gpu.empty()) {
    fail_input(
        "no GPU was found ({}), so none of {} problems was run; `qshard bench --device cpu` times the reference, "
        "`qshard bench --plugin FILE --check` needs no GPU",
        no_gpu, problems_of(*options).size() + options->step_kernels.size());
  }

  const DeviceInfo device = device_info();
  const Clocks clocks(device.pci_bus_id);
  if (!clocks.available()) fmt::print(stderr, "left out: clocks and throttling (libnvidia-ml.so.1 cannot be loaded)\n");
  const Providers providers = make_providers(*options);
  const Rows rows = make_rows(*options, providers);
  const StepKernelRows step_kernel_rows = make_step_kernel_rows(*options);
  const Ceilings ceilings = [&] {
    const nvtx3::scoped_range range("ceilings");
    return measure_ceilings(clocks, true);
  }();
  fmt::print("{}, driver {}: copy {:.0f} GB/s, read {:.0f}, write {:.0f}; bf16 product {:.0f} TFLOP/s; L2 {} MiB\n",
             device.name, device.driver, ceilings.copy * 1e-9, ceilings.read * 1e-9, ceilings.write * 1e-9,
             ceilings.product * 1e-12, device.l2_bytes >> 20);
  Session session{device, clocks, ceilings, nullptr};

  std::vector<char*> argv;
  argv.reserve(arguments.size());
  for (std::string& argument : arguments) argv.push_back(argument.data());
  auto argc = static_cast<int>(argv.size());
  add_context(session);
  benchmark::AddCustomContext("command", command);
  benchmark::Initialize(&argc, argv.data());
  if (benchmark::ReportUnrecognizedArguments(argc, argv.data())) return static_cast<int>(ExitCode::bad_input);
  Current current;
  register_rows(rows, options->repetitions, current, session);
  register_rows(step_kernel_rows, options->repetitions, current, session);
  ProgressReporter progress;
  benchmark::RunSpecifiedBenchmarks(&progress);
  benchmark::Shutdown();
  current.release();

  if (!rows.empty()) fmt::print("\n{}", format_table(rows, ceilings));
  if (!step_kernel_rows.empty()) fmt::print("\n{}", format_step_kernels(step_kernel_rows, ceilings));
  warn_of_throttling(rows);
  warn_of_slow_enqueuing(rows);
  const bool failed = any_failed(rows) || any_failed(step_kernel_rows);
  return static_cast<int>(failed ? ExitCode::check_failed : ExitCode::done);
}

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  try {
    return qshard::bench::run({argv, argv + argc});
  } catch (const qshard::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(qshard::ExitCode::check_failed);
  }
}
