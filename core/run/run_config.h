#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/run/engine_options.h"
#include "core/sharding/sharding_strategy.h"
#include "core/sharding/transport.h"

namespace qshard {

enum class Device : std::uint8_t { automatic, cpu, cuda };

/// When evaluation or saving happens between the start and the end of training.
enum class Interval : std::uint8_t { no, steps, epoch };

enum class Scheduler : std::uint8_t { constant, constant_with_warmup, linear, cosine };

/// The AdamWs that training.optim names: as torch's, the same with moments in float, bitsandbytes' with 8-bit moments.
enum class Optimizer : std::uint8_t { adamw, adamw_32bit, adamw_8bit };

enum class DatasetFormat : std::uint8_t { automatic, alpaca, prompt_completion, messages, text, prepared };

struct DatasetConfig {
  std::vector<std::string> path;
  std::vector<std::string> eval_path;
  DatasetFormat format = DatasetFormat::automatic;
  bool shuffle = true;
  bool packing = false;
  bool completion_only_loss = true;
  std::string text_field = "text";
  std::vector<std::string> columns;  // "prompt=question": the column question is read as prompt
  std::string template_date;         // ISO date that chat templates print; empty: today
};

/// The names and defaults of Hugging Face's TrainingArguments where it has the key.
struct TrainingConfig {
  std::string output_dir = "output";
  std::string resume_from_checkpoint = "false";  // false; true or latest; or a checkpoint directory
  std::int64_t per_device_train_batch_size = 8;
  std::int64_t per_device_eval_batch_size = 8;
  std::int64_t gradient_accumulation_steps = 1;
  double learning_rate = 5e-5;
  double warmup_steps = 0;  // below 1: a share of all steps
  double warmup_ratio = 0;
  double max_grad_norm = 1.0;
  double weight_decay = 0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double num_train_epochs = 3;
  std::int64_t max_steps = -1;  // -1: num_train_epochs decides
  std::int64_t max_length = 1024;
  std::int64_t logging_steps = 10;
  std::int64_t eval_steps = 500;
  std::int64_t save_steps = 500;
  std::int64_t save_total_limit = 0;  // 0: all are kept
  std::int64_t seed = 42;
  Scheduler lr_scheduler_type = Scheduler::linear;
  Optimizer optim = Optimizer::adamw;
  MomentFormat optim_moments_dtype = MomentFormat::lora_dtype;  // as given; moment_format() has optim's say in it
  Interval eval_strategy = Interval::no;
  Interval save_strategy = Interval::steps;
  bool overwrite_output_dir = false;
  MemorySaving gradient_checkpointing = MemorySaving::automatic;
  MemorySaving activation_offloading = MemorySaving::automatic;
  double memory_budget_gib = 0;  // 0: what is free
  bool bf16 = false;
  bool fp16 = false;
};

struct FsdpConfig {
  ShardingStrategy fsdp_sharding_strategy = ShardingStrategy::full_shard;
  std::int64_t shard_group_size = 0;
  bool fsdp_offload_params = false;
  Transport transport = Transport::automatic;
  std::int64_t world_size = 1;
};

/// Everything a run is made from. run_options.h names every member, its key, bounds and meaning.
struct RunConfig {
  std::string model_name_or_path;
  std::string adapter_name_or_path;
  Device device = Device::automatic;
  std::optional<DType> dtype;  // empty: the checkpoint's
  QuantizationOptions quantization;
  std::string quantization_cache_dir;  // empty: no cache
  bool quantization_cache_check = false;
  DType compute_dtype = DType::f32;
  LoraOptions lora;
  bool lora_use_rslora = false;
  std::vector<std::string> lora_rank_pattern;   // "q_proj=4"
  std::vector<std::string> lora_alpha_pattern;  // "q_proj=8"
  std::vector<std::string> lora_exclude_modules;
  std::vector<std::int64_t> lora_layers_to_transform;  // empty: all
  std::string lora_bias = "none";
  std::string lora_task_type = "CAUSAL_LM";
  TrainingConfig training;
  FsdpConfig fsdp;
  DatasetConfig dataset;

  /// Keys that were given, each with its place ("train.yaml:12", "command line").
  std::map<std::string, std::string, std::less<>> given;

  [[nodiscard]] bool has(std::string_view key) const { return given.find(key) != given.end(); }
  /// "train.yaml:12: training.max_steps", or the bare key where it was not given: begins messages about a value.
  [[nodiscard]] std::string where(std::string_view key) const;
  /// Rows of one optimizer step: per_device_train_batch_size * gradient_accumulation_steps * world_size.
  [[nodiscard]] std::int64_t rows_per_step() const;
};

/// Keys and values that override a file's, in order, for example {"training.max_steps", "5"}. Values are YAML.
using Overrides = std::vector<std::pair<std::string, std::string>>;

/// Parses YAML text and applies the overrides. Relative paths stay as they are (relative to the working directory).
/// `file` names the text in messages. Throws Error(bad_input) naming file and line for text that is not YAML, an
/// unknown key (with the nearest known one), a repeated key, a value of the wrong type or out of bounds.
RunConfig parse_run_config(std::string_view text, std::string_view file, const Overrides& overrides);

/// parse_run_config on a file of at most 1 MiB, then check_run_config.
RunConfig load_run_config(const std::string& path, const Overrides& overrides);

/// Throws Error(bad_input), saying what to do, for combinations that cannot run.
void check_run_config(const RunConfig& config);

/// How the moments are kept: what optim asks for, or optim_moments_dtype.
MomentFormat moment_format(const TrainingConfig& training);

/// The engine's part of the configuration; `checkpoint_dtype` is what an empty dtype stands for.
EngineOptions engine_options(const RunConfig& config, DType checkpoint_dtype);

}  // namespace qshard
