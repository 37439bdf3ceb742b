#include "core/base/error.h"
#include "core/run/run_config.h"

namespace qshard {
namespace {

void check_precision(const RunConfig& config) {
  if (config.training.bf16 && config.training.fp16) {
    fail_input("{} and training.fp16 exclude each other; leave one out", config.where("training.bf16"));
  }
  const std::string_view compute_key = "quantization.bnb_4bit_compute_dtype";
  const bool clash = (config.training.bf16 && config.compute_dtype != DType::bf16) ||
                     (config.training.fp16 && config.compute_dtype != DType::f16);
  if (clash && config.has(compute_key)) {
    fail_input("{} is {}, but {} asks for another compute dtype; leave one of them out", config.where(compute_key),
               torch_name(config.compute_dtype),
               config.where(config.training.bf16 ? "training.bf16" : "training.fp16"));
  }
}

void check_device(const RunConfig& config) {
  const FsdpConfig& fsdp = config.fsdp;
  if (fsdp.fsdp_offload_params && config.device == Device::cpu) {
    fail_input("{}: on the CPU the shards are in host memory anyway; set it to false, or device to cuda",
               config.where("fsdp.fsdp_offload_params"));
  }
  if (fsdp.fsdp_offload_params && fsdp.transport != Transport::automatic && fsdp.transport != Transport::host) {
    fail_input("{}: fsdp_offload_params brings shards from host memory, which {} does not; leave one of them out",
               config.where("fsdp.transport"), to_string(fsdp.transport));
  }
  if (fsdp.transport != Transport::automatic && config.device == Device::cpu) {
    fail_input("{}: {} is between GPUs, and device is cpu; leave it out", config.where("fsdp.transport"),
               to_string(fsdp.transport));
  }
}

void check_cache(const RunConfig& config) {
  if (config.quantization_cache_check && config.quantization_cache_dir.empty()) {
    fail_input("{}: there is no cache to check; give quantization.cache_dir, or leave it out",
               config.where("quantization.cache_check"));
  }
}

void check_groups(const RunConfig& config) {
  const FsdpConfig& fsdp = config.fsdp;
  const bool hybrid = fsdp.fsdp_sharding_strategy == ShardingStrategy::hybrid_shard;
  if (hybrid && fsdp.shard_group_size == 0) {
    fail_input("{} is HYBRID_SHARD: give fsdp.shard_group_size, the ranks of a group, usually the GPUs of a host",
               config.where("fsdp.fsdp_sharding_strategy"));
  }
  if (!hybrid && fsdp.shard_group_size != 0) {
    fail_input("{}: only HYBRID_SHARD has groups; leave it out", config.where("fsdp.shard_group_size"));
  }
}

void check_lora(const RunConfig& config) {
  if (!config.lora.lora_bias) return;
  if (config.lora.use_dora) {
    fail_input("{}: a bias does not go with lora.use_dora, in PEFT neither; leave one of the two out",
               config.where("lora.lora_bias"));
  }
  if (config.lora.start != LoraStart::uniform) {
    fail_input("{}: PEFT loads no adapter with a bias and lora.init_lora_weights gaussian; leave one of the two out",
               config.where("lora.lora_bias"));
  }
}

void check_batch(const RunConfig& config) {
  constexpr std::int64_t kMostRows = 1 << 24;
  if (config.rows_per_step() > kMostRows) {
    fail_input(
        "a step would take {} rows (per_device_train_batch_size * gradient_accumulation_steps * world_size); {} is the "
        "most",
        config.rows_per_step(), kMostRows);
  }
}

void check_optimizer(const RunConfig& config) {
  const MomentFormat given = config.training.optim_moments_dtype;
  if (given == MomentFormat::lora_dtype || given == moment_format(config.training)) return;
  fail_input("{} contradicts training.optim, whose moments are {}; leave one of the two out",
             config.where("training.optim_moments_dtype"),
             config.training.optim == Optimizer::adamw_8bit ? "8-bit" : "float32");
}

void check_schedule(const RunConfig& config) {
  const TrainingConfig& training = config.training;
  if (training.max_steps == 0) {
    fail_input("{} is 0: nothing would be trained; use 1 or more, or -1 for num_train_epochs",
               config.where("training.max_steps"));
  }
  if (training.max_steps > 0 && training.warmup_steps > static_cast<double>(training.max_steps)) {
    fail_input("{} ({}) is more than training.max_steps ({})", config.where("training.warmup_steps"),
               training.warmup_steps, training.max_steps);
  }
  if (training.eval_strategy != Interval::no && config.dataset.eval_path.empty()) {
    fail_input("{}: there is nothing to evaluate on; give dataset.eval_path", config.where("training.eval_strategy"));
  }
}

}  // namespace

void check_run_config(const RunConfig& config) {
  if (config.model_name_or_path.empty()) {
    fail_input("model_name_or_path is missing: give the directory of a base model");
  }
  if (config.training.output_dir.empty()) fail_input("{} is empty", config.where("training.output_dir"));
  check_precision(config);
  check_device(config);
  check_cache(config);
  check_groups(config);
  check_lora(config);
  check_batch(config);
  check_optimizer(config);
  check_schedule(config);
}

}  // namespace qshard
