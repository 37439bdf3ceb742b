#include "optimized/sharded/model_plan.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/model/model_parameters.h"
#include "optimized/attention/attention_table.h"
#include "optimized/device/cuda_check.h"
#include "optimized/llama_layer/attention_half.h"
#include "optimized/lora.h"

namespace qshard::optimized {

namespace {

// What libraries take later: cuBLASLt's kernels are loaded at their first use. 19 to 26 MiB were measured on H100 and
// H200 with driver 580.
constexpr std::int64_t kLibraryReserve = std::int64_t{28} << 20;

// The context of a process with these kernels on H100 and H200, driver 580. Other drivers and GPUs differ.
constexpr std::int64_t kContextBytes = std::int64_t{522} << 20;

// NCCL 2.28.3 with the channels and buffers of NcclCommunicator on two H200, driver 580: 498 MiB over NVLink, 466 with
// NCCL_P2P_DISABLE=1.
constexpr std::int64_t kNcclBytes = std::int64_t{482} << 20;

/// keys: what the batch comes from.
void check_attention_batch(const AttentionShape& shape, const BatchBound& batch, const char* keys) {
  if (batch.tokens == 0) return;
  try {
    check_attention_shape(shape, {batch.tokens, batch.rows, batch.longest});
  } catch (const Error& error) {
    fail_input("{}: {}", keys, error.what());
  }
}

void check_supported(const ModelConfig& config, const EngineOptions& options, const RunBounds& bounds) {
  const AttentionShape attention = attention_shape(config, 0, options.dtype);
  check_attention_shape(attention, {1, 1, 1});
  check_attention_batch(attention, bounds.training, "training.max_length, training.per_device_train_batch_size");
  check_attention_batch(attention, bounds.evaluation, "training.max_length, training.per_device_eval_batch_size");
  if (options.lora.r > kMostLoraRank) {
    fail_input("lora.r is {}, but on GPUs it is at most {}; larger ranks run with device: cpu", options.lora.r,
               kMostLoraRank);
  }
  if (options.compute_dtype != options.dtype) {
    fail_input(
        "on GPUs activations, adapters and everything that is not 4-bit have one dtype: dtype is {} and "
        "quantization.bnb_4bit_compute_dtype {}; give both the same value",
        torch_name(options.dtype), torch_name(options.compute_dtype));
  }
  if (!options.lora.modules.empty()) {
    fail_input(
        "on GPUs every module has the same r and lora_alpha; rank_pattern and alpha_pattern run with device: cpu");
  }
  if (!options.lora.is_plain()) {
    fail_input("on GPUs adapters are A and B alone; use_dora, lora_bias and modules_to_save run with device: cpu");
  }
}

std::string text_of(std::int64_t bytes) {
  return format_bytes(static_cast<double>(bytes));
}

struct Remedy {
  std::string advice;
  std::int64_t saved;
};

// Plans of one run by dry runs.
struct Planner {
  const ModelPlan* plan;
  const ShardPlaces* places;
  const WeightLoader* loader;

  [[nodiscard]] MemoryPlan operator()(const MemoryChoice& choice) const {
    return plan_memory(*plan, *places, *loader, choice);
  }
};

BatchBound half(const BatchBound& bound) {
  const std::int64_t tokens = (bound.tokens + 1) / 2;
  return {tokens, bound.rows, std::min(bound.longest, tokens)};
}

std::int64_t least_of_ranks(std::int64_t value, RankLink& link) {
  std::int64_t least = value;
  for (const std::vector<std::byte>& bytes : link.all_gather(std::as_bytes(std::span(&value, 1)))) {
    std::int64_t of_rank = 0;
    std::memcpy(&of_rank, bytes.data(), sizeof of_rank);
    least = std::min(least, of_rank);
  }
  return least;
}

// What would make the run smaller, largest saving first.
std::string remedies(const Planner& planner, const MemoryPlan& memory) {
  std::vector<Remedy> found;
  const auto try_plan = [&](const ModelPlan& plan, const MemoryChoice& choice, std::string advice) {
    const std::int64_t bytes = plan_memory(plan, *planner.places, *planner.loader, choice).device_bytes();
    if (bytes < memory.device_bytes()) found.push_back({std::move(advice), memory.device_bytes() - bytes});
  };
  const ModelPlan& plan = *planner.plan;
  MemoryChoice recomputing = memory.choice;
  recomputing.kept_layers = 0;
  if (memory.choice.kept_layers > 0) try_plan(plan, recomputing, "training.gradient_checkpointing: true");
  MemoryChoice offloading = memory.choice;
  offloading.inputs_on_host = true;
  if (!memory.choice.inputs_on_host) try_plan(plan, offloading, "training.activation_offloading: true");
  ModelPlan shorter = plan;
  shorter.bounds.training = half(plan.bounds.training);
  try_plan(shorter, memory.choice, "half as many tokens a batch (training.max_length, per_device_train_batch_size)");
  ModelPlan less_at_once = plan;
  less_at_once.bounds.evaluation = half(plan.bounds.evaluation);
  try_plan(less_at_once, memory.choice, "half as many tokens in evaluation (training.per_device_eval_batch_size)");
  ModelPlan offloaded = plan;
  offloaded.options.offload = true;
  offloaded.options.transport = Transport::host;
  if (!plan.options.offload) try_plan(offloaded, memory.choice, "fsdp.fsdp_offload_params: true");
  ModelPlan small_moments = plan;
  small_moments.options.optimizer.moments = MomentFormat::blockwise_8bit;
  try_plan(small_moments, memory.choice, "training.optim: adamw_8bit");
  std::sort(found.begin(), found.end(), [](const Remedy& a, const Remedy& b) { return a.saved > b.saved; });
  std::string text;
  for (const Remedy& remedy : found) text += fmt::format("\n  {} saves {}", remedy.advice, text_of(remedy.saved));
  return text + (plan.options.sharding == ShardingStrategy::no_shard
                     ? "\n  fsdp.fsdp_sharding_strategy: FULL_SHARD over several GPUs gives each a part of the weights"
                     : "\n  more GPUs make each one's share of the weights smaller");
}

// `best`, which keeps no layer's activations, with as many of at most `layers` kept as fit, by bisection.
MemoryPlan keep_layers(const Planner& planner, MemoryPlan best, std::int64_t layers, std::int64_t available) {
  MemoryChoice choice = best.choice;
  std::int64_t least = 0;          // kept layers that fit
  std::int64_t most = layers + 1;  // that do not
  while (most - least > 1) {
    choice.kept_layers = least + (most - least) / 2;
    MemoryPlan tried = planner(choice);
    if (tried.device_bytes() <= available) {
      least = choice.kept_layers;
      best = std::move(tried);
    } else {
      most = choice.kept_layers;
    }
  }
  return best;
}

// What costs least time first: the head's early gather is given up before the layers' inputs go to the host.
std::vector<MemoryChoice> choices_of(const EngineOptions& options, std::int64_t layers) {
  const std::int64_t kept_layers = options.gradient_checkpointing == MemorySaving::never ? layers : 0;
  std::vector<MemoryChoice> choices;
  for (const bool on_host : {false, true}) {
    if (options.activation_offloading == (on_host ? MemorySaving::never : MemorySaving::always)) continue;
    for (const bool early_head : {true, false}) choices.push_back({kept_layers, on_host, early_head});
  }
  return choices;
}

// The first choice that fits `available` bytes; the smallest plan where none does. Where no layer's activations are to
// be kept, the last layer's still are if that costs no memory: the backward pass begins with that layer, and as a rule
// memory is fuller later, when a layer is made again while the one before is gathered.
MemoryPlan choose_memory(const Planner& planner, std::int64_t available) {
  const EngineOptions& options = planner.plan->options;
  const std::int64_t layers = planner.plan->config.num_hidden_layers;
  MemoryPlan memory;
  for (const MemoryChoice& choice : choices_of(options, layers)) {
    memory = planner(choice);
    if (memory.device_bytes() > available) continue;
    if (options.gradient_checkpointing == MemorySaving::never) return memory;
    const std::int64_t bytes = memory.device_bytes();
    if (options.gradient_checkpointing == MemorySaving::always)
      return keep_layers(planner, std::move(memory), kFreeLayers, bytes);
    return keep_layers(planner, std::move(memory), layers, available);
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
                          const RunBounds& bounds, int world_size) {
  check_supported(config, options, bounds);
  ModelPlan plan{config, options, {}, {}, bounds};
  const PrequantizedInfo prequantized = [&](const std::string& name, const Shape& shape) {
    std::optional<Weight4bitInfo> info = source.prequantized(name);
    if (!info && options.quantization.load_in_4bit) info = planned_info(options.quantization, options.dtype, shape);
    if (info) plan.infos[name] = *info;
    return info;
  };
  const auto stages = list_model_stages(config, options.quantization, options.lora, options.dtype, prequantized);
  plan.options.world_size = world_size;
  plan.layout = plan_shards(stages, world_size, options.sharding, options.shard_group);
  return plan;
}

MemoryPlan fit_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader, RankLink& link) {
  std::size_t free = 0;
  std::size_t total = 0;
  QSHARD_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto outside = static_cast<std::int64_t>(total - free);
  std::int64_t available = static_cast<std::int64_t>(free) - kLibraryReserve;
  if (plan.options.memory_budget > 0)
    available = std::min(available, plan.options.memory_budget - outside - kLibraryReserve);
  if (plan.options.transport == Transport::nccl) available = least_of_ranks(available, link);
  const Planner planner{&plan, &places, &loader};
  MemoryPlan memory = choose_memory(planner, available);
  if (memory.device_bytes() <= available) return memory;
  fail(ExitCode::out_of_resources,
       "the run needs {} of the GPU, but {} are left of its {}{} (in use before the run: {}; kept for libraries: {}).\n"
       "{}What would make it fit:{}",
       text_of(memory.device_bytes()), text_of(std::max<std::int64_t>(0, available)),
       text_of(static_cast<std::int64_t>(total)),
       plan.options.memory_budget > 0
           ? fmt::format(" and training.memory_budget_gib of {}", text_of(plan.options.memory_budget))
           : "",
       text_of(outside), text_of(kLibraryReserve), describe(memory), remedies(planner, memory));
}

MemoryPlans plan_run_memory(const ModelConfig& config, const WeightSource& source, const EngineOptions& options,
                            const RunBounds& bounds) {
  ModelPlan plan = make_model_plan(config, source, options, bounds, options.world_size);
  if (plan.options.offload) plan.options.transport = Transport::host;
  if (plan.options.transport == Transport::automatic) plan.options.transport = Transport::peer;
  const ShardPlaces places(plan.layout, plan.infos.size());
  const WeightLoader loader(plan.layout, places, plan.infos, options.quantization, source);
  const Planner planner{&plan, &places, &loader};
  MemoryPlans plans;
  plans.outside = kContextBytes + kLibraryReserve;
  if (plan.options.transport == Transport::nccl && options.world_size > 1) plans.outside += kNcclBytes;
  const std::vector<MemoryChoice> choices = choices_of(options, config.num_hidden_layers);
  MemoryChoice fastest = choices.front();
  if (options.gradient_checkpointing != MemorySaving::always) fastest.kept_layers = config.num_hidden_layers;
  plans.smallest = planner(choices.back());
  plans.fastest = planner(fastest);
  const std::int64_t available = options.memory_budget - plans.outside;
  if (options.memory_budget == 0) return plans;
  MemoryPlan chosen = choose_memory(planner, available);
  if (chosen.device_bytes() <= available) {
    plans.within_budget = std::move(chosen);
  } else {
    plans.remedies = remedies(planner, plans.smallest);
  }
  return plans;
}

}  // namespace qshard::optimized
