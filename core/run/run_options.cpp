#include "core/run/run_options.h"

#include <algorithm>
#include <cmath>

#include "core/base/nearest_name.h"
#include "core/run/foreign_options.h"
#include "core/run/option_builders.h"
#include "core/sharding/sharding_strategy.h"
#include "core/tensor/weight4bit.h"

namespace qshard {
namespace {

using namespace option_builders;

constexpr IntegerBounds kCount{1, 1 << 20};

RunOption storage_dtype(std::string_view key, auto member, std::string_view doc) {
  return choice<DType>(
      key, member, {{"uint8", DType::u8}, {"bfloat16", DType::bf16}, {"float16", DType::f16}, {"float32", DType::f32}},
      doc);
}

template <typename Member>
RunOption memory_saving(std::string_view key, Member member, std::string_view doc) {
  return {key, "auto | true | false", doc,
          [member](RunConfig& config, const OptionValue& value, std::string_view where) {
            const bool automatic = value.texts.size() == 1 && value.texts.front() == "auto";
            member(config) = automatic                  ? MemorySaving::automatic
                             : parse_bool(value, where) ? MemorySaving::always
                                                        : MemorySaving::never;
          },
          [member](const RunConfig& config) {
            const MemorySaving saving = member(config);
            return std::string(saving == MemorySaving::automatic ? "auto"
                               : saving == MemorySaving::always  ? "true"
                                                                 : "false");
          }};
}

RunOption blocksize() {
  RunOption option = integer(
      "quantization.blocksize", [](auto& c) -> auto& { return c.quantization.blocksize; }, {32, 4096},
      "Elements that share one absmax.");
  option.type = "32 | 64 | 128 | 256 | 512 | 1024 | 2048 | 4096";
  option.set = [types = option.type](RunConfig& config, const OptionValue& value, std::string_view where) {
    const std::int64_t parsed = parse_integer(value, {}, where);
    if (!is_supported_blocksize(parsed)) fail_input("{}: block size {} is not one of {}", where, parsed, types);
    config.quantization.blocksize = static_cast<int>(parsed);
  };
  return option;
}

RunOption target_modules() {
  return {"lora.target_modules", "all-linear | list of module names | pattern",
          "Linear layers that get an adapter; all-linear leaves the output head out. One text with characters of a "
          "regular expression is a pattern that a whole module name must match, as in PEFT.",
          [](RunConfig& config, const OptionValue& value, std::string_view where) {
            if (value.texts.empty()) fail_input("{}: the list is empty; name a module or use all-linear", where);
            config.lora.target_modules = value.texts;
          },
          [](const RunConfig& config) {
            const auto& modules = config.lora.target_modules;
            return modules.size() == 1 ? modules.front() : fmt::format("[{}]", fmt::join(modules, ", "));
          }};
}

void check_rank(const std::string& text, std::string_view where) {
  parse_integer({false, {text}}, {1, 4096}, where);
}

void check_alpha(const std::string& text, std::string_view where) {
  parse_number({false, {text}}, {.least_excluded = true}, where);
}

RunOption layers_to_transform() {
  return {
      "lora.layers_to_transform", "list of integers, 0 or more",
      "Decoder layers that get an adapter, where target_modules is a list; none given: all.",
      [](RunConfig& config, const OptionValue& value, std::string_view where) {
        config.lora_layers_to_transform.clear();
        for (const std::string& text : value.texts) {
          config.lora_layers_to_transform.push_back(parse_integer({false, {text}}, {}, where));
        }
      },
      [](const RunConfig& config) { return fmt::format("[{}]", fmt::join(config.lora_layers_to_transform, ", ")); }};
}

RunOption modules_to_save() {
  RunOption option = texts(
      "lora.modules_to_save", [](auto& c) -> auto& { return c.lora.modules_to_save; },
      "embed_tokens | lm_head | list of both",
      "Modules that are trained and saved whole, in the run's dtype and not in 4 bits. On the CPU.");
  option.set = [parse = option.set](RunConfig& config, const OptionValue& value, std::string_view where) {
    for (const std::string& name : value.texts) {
      if (name != "embed_tokens" && name != "lm_head") {
        fail_input("{}: \"{}\" is not one of embed_tokens and lm_head", where, name);
      }
    }
    parse(config, value, where);
  };
  return option;
}

RunOption init_lora_weights() {
  RunOption option = choice<LoraStart>(
      "lora.init_lora_weights", [](auto& c) -> auto& { return c.lora.start; },
      {{"true", LoraStart::uniform}, {"gaussian", LoraStart::gaussian}},
      "How a new adapter's A begins: uniform in +-1/sqrt(in), or normal with a standard deviation of 1/r. B begins at "
      "zero.");
  option.set = [parse = option.set](RunConfig& config, const OptionValue& value, std::string_view where) {
    const std::string& name = single(value, "true or gaussian", where);
    for (const char* start : {"pissa", "olora", "loftq", "corda", "lora_ga", "eva", "orthogonal"}) {
      if (!name.starts_with(start)) continue;
      fail_input(
          "{}: \"{}\" takes the adapter's start out of the base weights or the data, which is not done here; make such "
          "an adapter by PEFT, save it as plain LoRA with the base model it belongs to, and name it in "
          "adapter_name_or_path, or use true or gaussian",
          where, name);
    }
    parse(config, value, where);
  };
  return option;
}

void add_model_options(std::vector<RunOption>& options) {
  using Dtype = std::optional<DType>;
  options.insert(
      options.end(),
      {text(
           "model_name_or_path", [](auto& c) -> auto& { return c.model_name_or_path; },
           "Directory of the base model in Hugging Face's layout, plain or quantized by bitsandbytes. Required."),
       text(
           "adapter_name_or_path", [](auto& c) -> auto& { return c.adapter_name_or_path; },
           "PEFT directory of the adapter to start from; without it a new adapter is made."),
       choice<Dtype>(
           "dtype", [](auto& c) -> auto& { return c.dtype; },
           {{"auto", Dtype()}, {"bfloat16", DType::bf16}, {"float16", DType::f16}, {"float32", DType::f32}},
           "Dtype of everything that is not 4-bit, LoRA included; auto: the checkpoint's."),
       choice<Device>(
           "device", [](auto& c) -> auto& { return c.device; },
           {{"auto", Device::automatic}, {"cpu", Device::cpu}, {"cuda", Device::cuda}},
           "Where the run computes; auto: on GPUs where this build and the machine have them, otherwise on the CPU."),
       boolean(
           "quantization.load_in_4bit", [](auto& c) -> auto& { return c.quantization.load_in_4bit; },
           "Hold the frozen linear layers in 4 bits. A checkpoint that is already quantized stays as it is."),
       choice<QuantType>(
           "quantization.bnb_4bit_quant_type", [](auto& c) -> auto& { return c.quantization.quant_type; },
           {{"nf4", QuantType::nf4}, {"fp4", QuantType::fp4}}, "Codebook of the 4-bit values."),
       boolean(
           "quantization.bnb_4bit_use_double_quant", [](auto& c) -> auto& { return c.quantization.double_quant; },
           "Quantize absmax itself to 8 bits."),
       storage_dtype(
           "quantization.bnb_4bit_quant_storage", [](auto& c) -> auto& { return c.quantization.quant_storage; },
           "Dtype the packed bytes are held and moved in; it changes no bit."),
       choice<DType>(
           "quantization.bnb_4bit_compute_dtype", [](auto& c) -> auto& { return c.compute_dtype; },
           {{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"float16", DType::f16}},
           "Dtype of the matrix products; each operation's result is rounded to it."),
       blocksize(),
       text(
           "quantization.cache_dir", [](auto& c) -> auto& { return c.quantization_cache_dir; },
           "Directory that keeps the quantized weights for the next start, on GPUs; \"\": nothing is kept. A quarter "
           "of "
           "the checkpoint's size."),
       boolean(
           "quantization.cache_check", [](auto& c) -> auto& { return c.quantization_cache_check; },
           "Hash the checkpoint and the kept weights again, and quantize anew what differs from the first load.")});
}

void add_lora_options(std::vector<RunOption>& options) {
  options.insert(
      options.end(),
      {integer(
           "lora.r", [](auto& c) -> auto& { return c.lora.r; }, {1, 4096}, "Rank of the adapters."),
       number(
           "lora.lora_alpha", [](auto& c) -> auto& { return c.lora.alpha; }, {.least_excluded = true},
           "The adapter's output is scaled by lora_alpha / r."),
       number(
           "lora.lora_dropout", [](auto& c) -> auto& { return c.lora.dropout; }, {.most = 1, .most_excluded = true},
           "Dropout of the adapter's input in training."),
       target_modules(),
       boolean(
           "lora.use_rslora", [](auto& c) -> auto& { return c.lora_use_rslora; },
           "Scale the adapter's output by lora_alpha / sqrt(r)."),
       named_texts(
           "lora.rank_pattern", [](auto& c) -> auto& { return c.lora_rank_pattern; }, "q_proj=4",
           "Other ranks by module; the name is a pattern for the end of a module's name.", check_rank),
       named_texts(
           "lora.alpha_pattern", [](auto& c) -> auto& { return c.lora_alpha_pattern; }, "q_proj=8",
           "Other values of lora_alpha by module, named as in rank_pattern.", check_alpha),
       texts(
           "lora.exclude_modules", [](auto& c) -> auto& { return c.lora_exclude_modules; }, "name | list of names",
           "Modules that get no adapter although target_modules names them."),
       layers_to_transform(), init_lora_weights(),
       boolean(
           "lora.use_dora", [](auto& c) -> auto& { return c.lora.use_dora; },
           "DoRA: adapted weights with trained lengths of their rows. On the CPU."),
       boolean(
           "lora.lora_bias", [](auto& c) -> auto& { return c.lora.lora_bias; },
           "Train a bias after each B, decayed as everything that is trained. On the CPU."),
       modules_to_save(),
       choice<std::string>(
           "lora.bias", [](auto& c) -> auto& { return c.lora_bias; }, {{"none", "none"}}, "Biases that are trained."),
       choice<std::string>(
           "lora.task_type", [](auto& c) -> auto& { return c.lora_task_type; }, {{"CAUSAL_LM", "CAUSAL_LM"}},
           "Written to adapter_config.json.")});
}

void add_dataset_options(std::vector<RunOption>& options) {
  using Format = DatasetFormat;
  options.insert(
      options.end(),
      {texts(
           "dataset.path", [](auto& c) -> auto& { return c.dataset.path; }, "file | list of files",
           "Training data: JSONL, JSON, CSV, Parquet, or one prepared safetensors file (input_ids, labels, offsets)."),
       texts(
           "dataset.eval_path", [](auto& c) -> auto& { return c.dataset.eval_path; }, "file | list of files",
           "Evaluation data of the same kinds; without it nothing is evaluated."),
       named_texts(
           "dataset.columns", [](auto& c) -> auto& { return c.dataset.columns; }, "prompt=question",
           "Columns with other names: {prompt: question, completion: answer} reads question as prompt."),
       text(
           "dataset.template_date", [](auto& c) -> auto& { return c.dataset.template_date; },
           "ISO date that a chat template prints as today's, such as 2026-01-31; without it, today's."),
       choice<Format>(
           "dataset.format", [](auto& c) -> auto& { return c.dataset.format; },
           {{"auto", Format::automatic},
            {"alpaca", Format::alpaca},
            {"prompt_completion", Format::prompt_completion},
            {"messages", Format::messages},
            {"text", Format::text},
            {"prepared", Format::prepared}},
           "What a row looks like; auto finds out from the first one."),
       text(
           "dataset.text_field", [](auto& c) -> auto& { return c.dataset.text_field; }, "Field of the text format."),
       boolean(
           "dataset.completion_only_loss", [](auto& c) -> auto& { return c.dataset.completion_only_loss; },
           "Only the response and the end of text count towards the loss, where a row has a prompt."),
       boolean(
           "dataset.shuffle", [](auto& c) -> auto& { return c.dataset.shuffle; },
           "A new order every epoch, from training.seed; false takes the rows in file order."),
       boolean(
           "dataset.packing", [](auto& c) -> auto& { return c.dataset.packing; },
           "Fill each row of a batch with whole rows of the file, up to max_length tokens; none sees another.")});
}

void add_fsdp_options(std::vector<RunOption>& options) {
  options.insert(
      options.end(),
      {choice<ShardingStrategy>(
           "fsdp.fsdp_sharding_strategy", [](auto& c) -> auto& { return c.fsdp.fsdp_sharding_strategy; },
           {{"FULL_SHARD", ShardingStrategy::full_shard},
            {"SHARD_GRAD_OP", ShardingStrategy::shard_grad_op},
            {"NO_SHARD", ShardingStrategy::no_shard},
            {"HYBRID_SHARD", ShardingStrategy::hybrid_shard}},
           "FULL_SHARD gathers a unit for each pass, SHARD_GRAD_OP keeps it in between, NO_SHARD replicates "
           "everything, "
           "HYBRID_SHARD is FULL_SHARD within groups of ranks."),
       integer(
           "fsdp.shard_group_size", [](auto& c) -> auto& { return c.fsdp.shard_group_size; }, {0, 4096},
           "Ranks of a group under HYBRID_SHARD, one after the other; usually the GPUs of a host. It divides the "
           "ranks."),
       boolean(
           "fsdp.fsdp_offload_params", [](auto& c) -> auto& { return c.fsdp.fsdp_offload_params; },
           "Keep the frozen shards in host memory that the ranks of a host share, and bring each unit when it is "
           "needed; "
           "the same bits (needs a GPU)."),
       choice<Transport>(
           "fsdp.transport", [](auto& c) -> auto& { return c.fsdp.transport; },
           {{"auto", Transport::automatic},
            {"peer", Transport::peer},
            {"nccl", Transport::nccl},
            {"host", Transport::host}},
           "How shards come together on GPUs, with the same bits: peer copies out of the other GPUs' memory, nccl also "
           "works without peer access and between hosts, host copies out of host memory that holds the shards once "
           "more; "
           "auto is peer where every GPU can read every other's memory, else nccl."),
       integer(
           "fsdp.world_size", [](auto& c) -> auto& { return c.fsdp.world_size; }, {1, 4096},
           "Ranks that the weights are sharded over, all in one process; where a launcher, --ranks or --gpus "
           "starts several, their number decides.")});
}

void add_batch_options(std::vector<RunOption>& options) {
  options.insert(
      options.end(),
      {integer(
           "training.per_device_train_batch_size",
           [](auto& c) -> auto& { return c.training.per_device_train_batch_size; }, kCount,
           "Rows of a micro-batch on each rank."),
       integer(
           "training.per_device_eval_batch_size",
           [](auto& c) -> auto& { return c.training.per_device_eval_batch_size; }, kCount, "Rows evaluated at once."),
       integer(
           "training.gradient_accumulation_steps",
           [](auto& c) -> auto& { return c.training.gradient_accumulation_steps; }, kCount,
           "Micro-batches of a step, weighted by their tokens."),
       integer(
           "training.max_length", [](auto& c) -> auto& { return c.training.max_length; }, {.least = 2},
           "Tokens of a row; longer rows are truncated and counted."),
       number(
           "training.num_train_epochs", [](auto& c) -> auto& { return c.training.num_train_epochs; },
           {.least_excluded = true}, "Passes over the data, where max_steps is -1."),
       integer(
           "training.max_steps", [](auto& c) -> auto& { return c.training.max_steps; }, {.least = -1},
           "Optimizer steps; -1 leaves it to num_train_epochs."),
       memory_saving(
           "training.gradient_checkpointing", [](auto& c) -> auto& { return c.training.gradient_checkpointing; },
           "Keep a layer's input only and run its forward pass again, but for the last layer where that is free; auto: "
           "of as many layers as the GPU's memory needs."),
       memory_saving(
           "training.activation_offloading", [](auto& c) -> auto& { return c.training.activation_offloading; },
           "Let the layers' inputs wait in host memory; auto: where the GPU's memory does not hold them."),
       number(
           "training.memory_budget_gib", [](auto& c) -> auto& { return c.training.memory_budget_gib; },
           {.most = 1 << 20}, "GiB of a GPU that a rank may use, context included; 0: what is free."),
       boolean(
           "training.bf16", [](auto& c) -> auto& { return c.training.bf16; },
           "Short for quantization.bnb_4bit_compute_dtype: bfloat16."),
       boolean(
           "training.fp16", [](auto& c) -> auto& { return c.training.fp16; },
           "Short for quantization.bnb_4bit_compute_dtype: float16."),
       integer(
           "training.seed", [](auto& c) -> auto& { return c.training.seed; }, {},
           "Seed of the adapter's start, the order of the rows and dropout.")});
}

RunOption warmup_steps() {
  RunOption option = number(
      "training.warmup_steps", [](auto& c) -> auto& { return c.training.warmup_steps; }, {},
      "Steps of linear warm-up from 0; below 1, a share of all steps.");
  option.set = [parse = option.set](RunConfig& config, const OptionValue& value, std::string_view where) {
    parse(config, value, where);
    const double steps = config.training.warmup_steps;
    if (steps > 1 && steps != std::floor(steps)) fail_input("{}: {} is neither whole steps nor a share", where, steps);
  };
  return option;
}

RunOption optim() {
  RunOption option = choice<Optimizer>(
      "training.optim", [](auto& c) -> auto& { return c.training.optim; },
      {{"adamw_torch_fused", Optimizer::adamw},
       {"adamw_torch", Optimizer::adamw},
       {"adamw_8bit", Optimizer::adamw_8bit},
       {"adamw_bnb_8bit", Optimizer::adamw_8bit},
       {"paged_adamw_8bit", Optimizer::adamw_8bit},
       {"paged_adamw_32bit", Optimizer::adamw_32bit}},
      "AdamW as torch's fused one; 8bit: bitsandbytes' 8-bit AdamW; 32bit: moments in float32. Paged ones are the same "
      "here: memory is planned, and nothing is paged.");
  option.set = [parse = option.set](RunConfig& config, const OptionValue& value, std::string_view where) {
    const std::string_view advice = value.is_list ? "" : foreign_optimizer_advice(value.texts.front());
    if (!advice.empty()) fail_input("{}: \"{}\" is not there: {}", where, value.texts.front(), advice);
    parse(config, value, where);
  };
  return option;
}

void add_optimizer_options(std::vector<RunOption>& options) {
  options.insert(options.end(),
                 {optim(),
                  choice<MomentFormat>(
                      "training.optim_moments_dtype", [](auto& c) -> auto& { return c.training.optim_moments_dtype; },
                      {{"auto", MomentFormat::lora_dtype},
                       {"float32", MomentFormat::float32},
                       {"bfloat16", MomentFormat::bfloat16}},
                      "Dtype that AdamW's two moments are kept in between steps; auto: as optim says, else LoRA's."),
                  number(
                      "training.learning_rate", [](auto& c) -> auto& { return c.training.learning_rate; }, {},
                      "The highest learning rate of the schedule."),
                  choice<Scheduler>(
                      "training.lr_scheduler_type", [](auto& c) -> auto& { return c.training.lr_scheduler_type; },
                      {{"constant", Scheduler::constant},
                       {"constant_with_warmup", Scheduler::constant_with_warmup},
                       {"linear", Scheduler::linear},
                       {"cosine", Scheduler::cosine}},
                      "What follows the warm-up; constant has none."),
                  warmup_steps(),
                  number(
                      "training.warmup_ratio", [](auto& c) -> auto& { return c.training.warmup_ratio; }, {.most = 1},
                      "The same as a part of all steps, where warmup_steps is 0."),
                  number(
                      "training.max_grad_norm", [](auto& c) -> auto& { return c.training.max_grad_norm; }, {},
                      "Gradients are scaled down to this global norm; 0: never."),
                  number(
                      "training.weight_decay", [](auto& c) -> auto& { return c.training.weight_decay; }, {},
                      "AdamW's decoupled weight decay."),
                  number(
                      "training.adam_beta1", [](auto& c) -> auto& { return c.training.adam_beta1; },
                      {.most = 1, .most_excluded = true}, "AdamW's decay of the mean gradient."),
                  number(
                      "training.adam_beta2", [](auto& c) -> auto& { return c.training.adam_beta2; },
                      {.most = 1, .most_excluded = true}, "AdamW's decay of the mean square."),
                  number(
                      "training.adam_epsilon", [](auto& c) -> auto& { return c.training.adam_epsilon; },
                      {.least_excluded = true}, "Added to the root of the mean square.")});
}

void add_output_options(std::vector<RunOption>& options) {
  const auto intervals = std::vector<std::pair<std::string_view, Interval>>{
      {"no", Interval::no}, {"steps", Interval::steps}, {"epoch", Interval::epoch}};
  options.insert(
      options.end(),
      {text(
           "training.output_dir", [](auto& c) -> auto& { return c.training.output_dir; },
           "Where the adapter, checkpoints, metrics.jsonl and trainer_state.json go."),
       boolean(
           "training.overwrite_output_dir", [](auto& c) -> auto& { return c.training.overwrite_output_dir; },
           "Remove an earlier run's files from output_dir before starting anew."),
       text(
           "training.resume_from_checkpoint", [](auto& c) -> auto& { return c.training.resume_from_checkpoint; },
           "true or latest: go on from the newest complete checkpoint, or start where there is none; or a directory."),
       integer(
           "training.logging_steps", [](auto& c) -> auto& { return c.training.logging_steps; }, {.least = 1},
           "Steps between printed lines (every step is in metrics.jsonl)."),
       choice<Interval>(
           "training.eval_strategy", [](auto& c) -> auto& { return c.training.eval_strategy; }, intervals,
           "Evaluation between the one before and the one after training."),
       integer(
           "training.eval_steps", [](auto& c) -> auto& { return c.training.eval_steps; }, {.least = 1},
           "Steps between evaluations."),
       choice<Interval>(
           "training.save_strategy", [](auto& c) -> auto& { return c.training.save_strategy; }, intervals,
           "When checkpoints are written; steps and epoch write one at the end too."),
       integer(
           "training.save_steps", [](auto& c) -> auto& { return c.training.save_steps; }, {.least = 1},
           "Steps between checkpoints."),
       integer(
           "training.save_total_limit", [](auto& c) -> auto& { return c.training.save_total_limit; }, {},
           "Checkpoints kept, the newest ones; 0: all.")});
}

std::vector<RunOption> make_run_options() {
  std::vector<RunOption> options;
  add_model_options(options);
  add_lora_options(options);
  add_dataset_options(options);
  add_fsdp_options(options);
  add_batch_options(options);
  add_optimizer_options(options);
  add_output_options(options);
  return options;
}

std::string_view without_section(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

}  // namespace

std::span<const RunOption> run_options() {
  static const std::vector<RunOption> options = make_run_options();
  return options;
}

const RunOption* find_run_option(std::string_view key) {
  const auto options = run_options();
  const auto found = std::ranges::find(options, key, &RunOption::key);
  return found == options.end() ? nullptr : &*found;
}

std::string suggest_run_option(std::string_view key) {
  const std::string_view advice = foreign_option_advice(without_section(key));
  if (!advice.empty()) return fmt::format(" ({})", advice);
  std::vector<std::string_view> keys;
  std::vector<std::string_view> names;
  for (const RunOption& option : run_options()) {
    keys.push_back(option.key);
    names.push_back(without_section(option.key));
  }
  // The right name in the wrong section is nearer than any spelling.
  const std::string_view name = nearest_name(without_section(key), names);
  std::string_view nearest = nearest_name(key, keys);
  if (!name.empty() && (nearest.empty() || name == without_section(key))) {
    nearest = keys[static_cast<std::size_t>(std::ranges::find(names, name) - names.begin())];
  }
  return nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest);
}

}  // namespace qshard
