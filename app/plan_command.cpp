#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/device_engine.h"
#include "app/device_number_options.h"
#include "app/load_model.h"
#include "app/plan_json.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_config.h"
#include "core/run/engine_options.h"
#include "core/sharding/layout_table.h"
#include "core/sharding/shard_layout.h"
#include "core/sharding/step_time_report.h"

namespace qshard {
namespace {

struct RunPlan {
  ShardLayout layout;
  std::optional<MemoryPlans> memory;  // of a GPU
  std::string no_memory;              // why a GPU would not run it, where none has to
  std::int64_t budget = 0;
  std::optional<StepWork> step;                             // where a GPU would compute it in 16 bits
  DType dtype = DType::bf16;                                // of what is not 4-bit
  std::function<std::vector<ModelStage>(DType)> stages_of;  // with the 4-bit codes held in that dtype
};

/// What the step does for memory's sake: as given, as the plan of memory says, or as little as the configuration lets.
MemoryChoice choice_of(const RunConfig& config, const std::optional<MemoryPlans>& memory, std::int64_t layers,
                       std::int64_t given_layers) {
  MemoryChoice choice;
  if (memory && memory->within_budget) {
    choice = memory->within_budget->choice;
  } else if (memory && config.training.memory_budget_gib > 0) {
    choice = memory->smallest.choice;  // nothing fits
  } else {
    choice.kept_layers = config.training.gradient_checkpointing == MemorySaving::never ? layers : kFreeLayers;
    choice.inputs_on_host = config.training.activation_offloading == MemorySaving::always;
  }
  if (given_layers >= 0) choice.kept_layers = std::min(given_layers, layers);
  return choice;
}

/// Empty where what is planned computes in floats, whose rates are not among the device's numbers.
std::optional<StepWork> step_work(const RunConfig& config, const EngineOptions& options, const ModelConfig& model,
                                  const RunPlan& plan, const DeviceNumberOptions& device) {
  if (size_of(options.compute_dtype) != 2) return std::nullopt;
  const TrainingConfig& training = config.training;
  StepWork work;
  work.model = model;
  work.quantization = options.quantization;
  work.quantization.load_in_4bit = work.quantization.load_in_4bit || model.prequantized_4bit;
  work.lora = options.lora;
  work.stages = list_stage_work(plan.layout);
  work.sharding = options.sharding;
  const bool hybrid = options.sharding == ShardingStrategy::hybrid_shard;
  work.ranks = hybrid ? plan.layout.shards : options.world_size;
  work.groups = hybrid ? device.groups * options.world_size / plan.layout.shards : device.groups;
  work.ranks_a_machine = device.link == "network" ? 1 : device.ranks_a_machine;
  const std::int64_t rows = training.per_device_train_batch_size;
  work.batch = {rows * training.max_length, rows, training.max_length};
  work.micro_batches = training.gradient_accumulation_steps;
  work.choice = choice_of(config, plan.memory, model.num_hidden_layers, device.kept_layers);
  work.offload = config.fsdp.fsdp_offload_params;
  work.transport = config.fsdp.transport;
  return work;
}

/// The largest batches that the configuration allows.
RunBounds largest_batches(const RunConfig& config) {
  const TrainingConfig& training = config.training;
  const auto rows_of = [&](std::int64_t rows) {
    return BatchBound{rows * training.max_length, rows, training.max_length};
  };
  RunBounds bounds;
  bounds.training = rows_of(training.per_device_train_batch_size);
  if (!config.dataset.eval_path.empty()) bounds.evaluation = rows_of(training.per_device_eval_batch_size);
  return bounds;
}

/// Throws Error(bad_input) where a number of bytes or of operations would leave 64 bits: far more than any machine
/// does.
void check_countable(const BatchBound& batch, const ModelConfig& model) {
  constexpr double kMost = 4e18;
  constexpr double kForms = 64;  // bytes of one value in all forms in which a step may keep it
  const auto heads = static_cast<double>(model.num_attention_heads + model.num_key_value_heads);
  const auto longest = static_cast<double>(batch.longest);
  const double layer = 6 * static_cast<double>(model.hidden_size) + 4 * static_cast<double>(model.intermediate_size) +
                       heads * (4 * static_cast<double>(model.head_dim) + longest);
  const double a_token =
      static_cast<double>(model.num_hidden_layers) * layer + 4 * static_cast<double>(model.vocab_size);
  if (static_cast<double>(batch.rows) * longest * a_token * kForms <= kMost) return;
  fail_input("training.max_length: {} rows of {} tokens at once are more than 64 bits can count", batch.rows,
             batch.longest);
}

/// storage: what holds the 4-bit codes; as the checkpoint or the configuration says where it is not given.
std::vector<ModelStage> list_stages(const HfCheckpoint* checkpoint, const EngineOptions& options,
                                    const ModelConfig& model, std::optional<DType> storage) {
  const PrequantizedInfo prequantized = [&](const std::string& name, const Shape&) -> std::optional<Weight4bitInfo> {
    if (checkpoint == nullptr || !has_weight4bit(*checkpoint, name)) return std::nullopt;
    Weight4bitInfo info = read_weight4bit_info(*checkpoint, name);
    info.storage = storage.value_or(info.storage);
    return info;
  };
  QuantizationOptions quantization = options.quantization;
  quantization.quant_storage = storage.value_or(quantization.quant_storage);
  return list_model_stages(model, quantization, options.lora, options.dtype, prequantized);
}

/// Needs config.json only, unless the checkpoint is quantized already: then its 4-bit weights' metadata too.
RunPlan plan(const RunConfig& config, const DeviceNumberOptions& device) {
  const std::filesystem::path directory = config.model_name_or_path;
  const ModelConfig llama = read_hf_config(directory / "config.json");
  std::optional<AdapterConfig> adapter;
  if (!config.adapter_name_or_path.empty()) {
    const auto path = std::filesystem::path(config.adapter_name_or_path) / "adapter_config.json";
    adapter = parse_adapter_config(read_file(path), path.string());
  }
  std::shared_ptr<const HfCheckpoint> checkpoint;
  if (llama.prequantized_4bit) checkpoint = std::make_shared<const HfCheckpoint>(HfCheckpoint::open(directory));
  const EngineOptions options = resolve_options(config, llama, adapter);
  check_countable(largest_batches(config).all(), llama);
  RunPlan plan;
  plan.budget = options.memory_budget;
  plan.dtype = options.dtype;
  plan.stages_of = [checkpoint, options, llama](DType storage) {
    return list_stages(checkpoint.get(), options, llama, storage);
  };
  plan.layout = plan_shards(list_stages(checkpoint.get(), options, llama, std::nullopt), options.world_size,
                            options.sharding, options.shard_group);
  if (config.device != Device::cpu && options.dtype == options.compute_dtype) {
    try {
      plan.memory = plan_device_memory(llama, checkpoint.get(), options, largest_batches(config));
    } catch (const Error& error) {
      if (runs_on_device(config) || error.code() != ExitCode::bad_input) throw;
      plan.no_memory = error.what();
    }
  }
  plan.step = step_work(config, options, llama, plan, device);
  return plan;
}

std::vector<LayoutCost> compare_layouts(const RunPlan& plan, const DeviceNumbers& numbers) {
  if (!plan.step) {
    fail_input("--layouts compares steps in 16-bit arithmetic: this run computes in float32; set dtype: bfloat16");
  }
  return list_layout_costs(plan.stages_of, plan.dtype, *plan.step, numbers);
}

void print(const RunPlan& plan, const TrainingConfig& training, const DeviceNumbers& numbers) {
  fmt::print("{}", describe(plan.layout));
  if (plan.step) fmt::print("{}", describe(*plan.step, numbers));
  if (!plan.no_memory.empty()) fmt::print("GPU memory: not planned: {}\n", plan.no_memory);
  if (!plan.memory) return;
  fmt::print("GPU memory of a rank for rows of {} tokens, {} at once in training and {} in evaluation:\n{}",
             training.max_length, training.per_device_train_batch_size, training.per_device_eval_batch_size,
             describe(*plan.memory, plan.budget));
}

}  // namespace

void add_plan_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto overrides = std::make_shared<Overrides>();
  CLI::App* command =
      app.add_subcommand("plan",
                         "The shard layout, a step's time and a GPU's memory: units, what each rank "
                         "holds, padding, messages; reads no weights. Exit code 3 where "
                         "training.memory_budget_gib is too little, after the plan and what would help");
  command->add_option("CONFIG", *path, "Run configuration (YAML)")->required();
  add_config_options(*command, overrides, {});
  auto device = std::make_shared<DeviceNumberOptions>();
  add_device_number_options(*command, device);
  auto json = std::make_shared<std::string>();
  command->add_option("--json", *json, "Write what each rank holds to this file, for `qshard report`")
      ->check(not_empty());
  auto layouts = std::make_shared<bool>(false);
  command->add_flag(
      "--layouts", *layouts,
      "Compare every layout: dtype that holds the codes, what a unit is, scales sharded or not, strategy");
  command->callback([path, overrides, device, json, layouts] {
    const RunConfig config = load_run_config(*path, *overrides);
    const DeviceNumbers numbers = resolve_device_numbers(*device);
    const RunPlan planned = plan(config, *device);
    print(planned, config.training, numbers);
    std::vector<LayoutCost> costs;
    if (*layouts) costs = compare_layouts(planned, numbers);
    if (*layouts) fmt::print("{}", describe(costs));
    if (!json->empty()) {
      const std::string name = std::filesystem::absolute(*path).lexically_normal().parent_path().filename().string();
      remove_leftovers_of(*json);
      write_file(*json, plan_json(planned.layout, moment_format(config.training), name, planned.step, numbers, costs));
    }
    if (planned.memory && planned.budget > 0 && !planned.memory->within_budget) {
      fail(ExitCode::out_of_resources, "training.memory_budget_gib is too little for this run: see the plan");
    }
  });
}

}  // namespace qshard
