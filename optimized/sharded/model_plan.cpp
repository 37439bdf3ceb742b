#include "optimized/sharded/model_plan.h"

#include <algorithm>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/model/model_parameters.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

// What libraries take later: cuBLASLt's and cuDNN's kernels are loaded at their first use.
constexpr std::int64_t kLibraryReserve = std::int64_t{192} << 20;

void check_supported(const EngineOptions& options) {
  if (options.compute_dtype != options.dtype) {
    fail_input(
        "on GPUs activations, adapters and everything that is not 4-bit have one dtype: dtype is {} and "
        "quantization.bnb_4bit_compute_dtype {}; give both the same value",
        torch_name(options.dtype), torch_name(options.compute_dtype));
  }
}

std::string text_of(std::int64_t bytes) {
  return format_bytes(static_cast<double>(bytes));
}

struct Remedy {
  std::string advice;
  std::int64_t saved;
};

// What would make the run smaller, largest saving first.
std::string remedies(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                     const MemoryPlan& memory) {
  std::vector<Remedy> found;
  const auto try_plan = [&](const ModelPlan& other, std::int64_t kept_layers, std::string advice) {
    const std::int64_t bytes = plan_memory(other, places, loader, kept_layers).arena_bytes;
    if (bytes < memory.arena_bytes) found.push_back({std::move(advice), memory.arena_bytes - bytes});
  };
  if (memory.kept_layers > 0) try_plan(plan, 0, "training.gradient_checkpointing: true");
  ModelPlan shorter = plan;
  shorter.bound.tokens = std::max<std::int64_t>(1, plan.bound.tokens / 2);
  shorter.bound.longest = std::min(shorter.bound.longest, shorter.bound.tokens);
  try_plan(shorter, memory.kept_layers,
           "half as many tokens a batch (training.max_length, per_device_train_batch_size)");
  std::sort(found.begin(), found.end(), [](const Remedy& a, const Remedy& b) { return a.saved > b.saved; });
  std::string text;
  for (const Remedy& remedy : found) text += fmt::format("\n  {} saves {}", remedy.advice, text_of(remedy.saved));
  return text + "\n  more GPUs make each one's share of the weights smaller";
}

// For automatic recomputation with as many kept layers as `available` bytes hold.
MemoryPlan choose_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                         Recomputation recomputation, std::int64_t available) {
  if (recomputation == Recomputation::always) return plan_memory(plan, places, loader, 0);
  std::int64_t most = plan.config.num_hidden_layers;
  MemoryPlan memory = plan_memory(plan, places, loader, most);
  if (recomputation == Recomputation::never || memory.arena_bytes <= available) return memory;
  std::int64_t least = 0;  // kept layers that fit, if any do
  memory = plan_memory(plan, places, loader, 0);
  while (most - least > 1) {
    const std::int64_t middle = least + (most - least) / 2;
    MemoryPlan tried = plan_memory(plan, places, loader, middle);
    if (tried.arena_bytes <= available) {
      least = middle;
      memory = std::move(tried);
    } else {
      most = middle;
    }
  }
  return memory;
}

// Uses at the peak, largest first.
std::string describe(const MemoryPlan& plan) {
  std::string text;
  for (const MemoryUse& use : plan.at_peak) text += fmt::format("  {:<26}{:>12}\n", use.name, text_of(use.bytes));
  return text;
}

}  // namespace

ModelPlan make_model_plan(const ModelConfig& config, const WeightSource& source, const EngineOptions& options,
                          const BatchBound& bound, int world_size) {
  check_supported(options);
  ModelPlan plan{config, options, {}, {}, bound};
  const PrequantizedInfo prequantized = [&](const std::string& name, const Shape& shape) {
    std::optional<Weight4bitInfo> info = source.prequantized(name);
    if (!info && options.quantization.load_in_4bit) info = planned_info(options.quantization, options.dtype, shape);
    if (info) plan.infos[name] = *info;
    return info;
  };
  const auto stages = list_model_stages(config, options.quantization, options.lora, options.dtype, prequantized);
  plan.options.world_size = world_size;
  plan.layout = plan_shards(stages, world_size, options.sharding);
  return plan;
}

MemoryPlan fit_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                      const DeviceRunOptions& run) {
  std::size_t free = 0;
  std::size_t total = 0;
  QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto outside = static_cast<std::int64_t>(total - free);
  std::int64_t available = static_cast<std::int64_t>(free) - kLibraryReserve;
  if (run.memory_budget > 0) available = std::min(available, run.memory_budget - outside - kLibraryReserve);
  MemoryPlan memory = choose_memory(plan, places, loader, run.recomputation, available);
  if (memory.arena_bytes <= available) return memory;
  fail(ExitCode::out_of_resources,
       "the run needs {} of the GPU, but {} are left of its {}{} (in use before the run: {}; kept for libraries: {}).\n"
       "{}What would make it fit:{}",
       text_of(memory.arena_bytes), text_of(std::max<std::int64_t>(0, available)),
       text_of(static_cast<std::int64_t>(total)),
       run.memory_budget > 0 ? fmt::format(" and training.memory_budget_gib of {}", text_of(run.memory_budget)) : "",
       text_of(outside), text_of(kLibraryReserve), describe(memory), remedies(plan, places, loader, memory));
}

}  // namespace qshard::optimized
