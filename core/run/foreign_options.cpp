#include "core/run/foreign_options.h"

#include <algorithm>
#include <array>
#include <span>

namespace qshard {
namespace {

struct ForeignOption {
  std::string_view name;
  std::string_view advice;
};

// Sorted by name.
constexpr std::array kForeignOptions{
    ForeignOption{"activation_checkpointing", "here it is training.gradient_checkpointing"},
    ForeignOption{"adafactor", "AdamW is the only optimizer; leave it out"},
    ForeignOption{"alpha", "here it is lora.lora_alpha"},
    ForeignOption{"assistant_only_loss",
                  "here it is dataset.completion_only_loss, which is on: only answers are learned"},
    ForeignOption{"attn_implementation", "there is one attention, exact; leave it out"},
    ForeignOption{"auto_find_batch_size", "qshard plan shows what fits; set training.per_device_train_batch_size"},
    ForeignOption{"backend", "the collectives follow from device; leave it out"},
    ForeignOption{"batch_size", "here it is training.per_device_train_batch_size"},
    ForeignOption{"bf16_full_eval", "evaluation computes as training does; leave it out"},
    ForeignOption{"chat_template_path", "put the template as chat_template.jinja into the model's directory"},
    ForeignOption{"cutoff_len", "here it is training.max_length"},
    ForeignOption{"data_seed", "here training.seed orders the rows too"},
    ForeignOption{"dataloader_drop_last", "every row is used; leave it out"},
    ForeignOption{"dataloader_num_workers", "rows are tokenized before training; leave it out"},
    ForeignOption{"dataset_name", "here it is dataset.path, a file on this machine"},
    ForeignOption{"dataset_num_proc", "tokenization uses all cores; leave it out"},
    ForeignOption{"dataset_text_field", "here it is dataset.text_field"},
    ForeignOption{"ddp_find_unused_parameters", "there is no DDP; leave it out"},
    ForeignOption{"deepspeed", "sharding is set under fsdp"},
    ForeignOption{"do_eval", "give dataset.eval_path to evaluate, or run qshard eval"},
    ForeignOption{"do_train", "qshard train trains; leave it out"},
    ForeignOption{"dropout", "here it is lora.lora_dropout"},
    ForeignOption{"early_stopping_patience",
                  "there is no early stopping; training.save_strategy keeps what came before"},
    ForeignOption{"epochs", "here it is training.num_train_epochs"},
    ForeignOption{"eval_accumulation_steps", "evaluation keeps no logits; leave it out"},
    ForeignOption{"eval_dataset", "here it is dataset.eval_path"},
    ForeignOption{"eval_file", "here it is dataset.eval_path"},
    ForeignOption{"eval_packing", "evaluation takes each row alone; leave it out"},
    ForeignOption{"evaluation_strategy", "here it is training.eval_strategy"},
    ForeignOption{"fsdp_auto_wrap_policy", "each decoder layer is a unit; leave it out"},
    ForeignOption{"fsdp_backward_prefetch", "the next unit is always fetched ahead; leave it out"},
    ForeignOption{"fsdp_cpu_ram_efficient_loading", "each rank reads only its shards; leave it out"},
    ForeignOption{"fsdp_state_dict_type", "only the adapter is saved, whole; leave it out"},
    ForeignOption{"fsdp_transformer_layer_cls_to_wrap", "each decoder layer is a unit; leave it out"},
    ForeignOption{"fsdp_use_orig_params", "only the adapter is trained; leave it out"},
    ForeignOption{"gradient_checkpointing_kwargs", "training.gradient_checkpointing has no variants; leave it out"},
    ForeignOption{"group_by_length", "use dataset.packing for less padding"},
    ForeignOption{"hub_model_id", "nothing is uploaded; the adapter is in training.output_dir"},
    ForeignOption{"learning_rate_scheduler", "here it is training.lr_scheduler_type"},
    ForeignOption{"load_best_model_at_end", "checkpoints stay in training.output_dir; choose one by its eval_loss"},
    ForeignOption{"load_in_8bit", "weights are held in 4 bits or not quantized: quantization.load_in_4bit"},
    ForeignOption{"logging_dir", "everything is written to training.output_dir"},
    ForeignOption{"lora_r", "here it is lora.r"},
    ForeignOption{"lora_rank", "here it is lora.r"},
    ForeignOption{"lora_target_modules", "here it is lora.target_modules"},
    ForeignOption{"lr", "here it is training.learning_rate"},
    ForeignOption{"lr_scheduler", "here it is training.lr_scheduler_type"},
    ForeignOption{"lr_scheduler_kwargs", "the schedules have no parameters; leave it out"},
    ForeignOption{"max_seq_len", "here it is training.max_length"},
    ForeignOption{"max_seq_length", "here it is training.max_length"},
    ForeignOption{"micro_batch_size", "here it is training.per_device_train_batch_size"},
    ForeignOption{"mixed_precision", "here it is training.bf16 or training.fp16"},
    ForeignOption{"model_id", "here it is model_name_or_path"},
    ForeignOption{"model_max_length", "here it is training.max_length"},
    ForeignOption{"model_name", "here it is model_name_or_path"},
    ForeignOption{"neftune_noise_alpha", "noise on embeddings is not supported; leave it out"},
    ForeignOption{"num_epochs", "here it is training.num_train_epochs"},
    ForeignOption{"num_gpus", "here it is fsdp.world_size"},
    ForeignOption{"optim_args", "AdamW's numbers are training.adam_beta1, adam_beta2, adam_epsilon and weight_decay"},
    ForeignOption{"optim_bits", "here it is training.optim: adamw_8bit"},
    ForeignOption{"optimizer", "here it is training.optim"},
    ForeignOption{"packing_strategy", "dataset.packing keeps rows whole; leave it out"},
    ForeignOption{"pad_to_multiple_of", "rows are not padded; leave it out"},
    ForeignOption{"padding_free", "rows are never padded; leave it out"},
    ForeignOption{"per_gpu_train_batch_size", "here it is training.per_device_train_batch_size"},
    ForeignOption{"push_to_hub", "nothing is uploaded; the adapter is in training.output_dir"},
    ForeignOption{"remove_unused_columns", "columns that are not used are named and left alone; leave it out"},
    ForeignOption{"run_name", "training.output_dir names the run; leave it out"},
    ForeignOption{"save_safetensors", "adapters are always safetensors; leave it out"},
    ForeignOption{"sharding_strategy", "here it is fsdp.fsdp_sharding_strategy"},
    ForeignOption{"test_file", "here it is dataset.eval_path"},
    ForeignOption{"tf32", "products are computed in quantization.bnb_4bit_compute_dtype"},
    ForeignOption{"torch_compile", "the kernels are compiled already; leave it out"},
    ForeignOption{"torch_dtype", "here it is dtype"},
    ForeignOption{"train_dataset", "here it is dataset.path"},
    ForeignOption{"train_file", "here it is dataset.path"},
    ForeignOption{"train_on_inputs", "here it is dataset.completion_only_loss: false"},
    ForeignOption{"trust_remote_code", "no code of a model is run; leave it out"},
    ForeignOption{"use_cpu", "here it is device: cpu"},
    ForeignOption{"use_liger_kernel", "the kernels are the program's own; leave it out"},
    ForeignOption{"validation_file", "here it is dataset.eval_path"},
};

constexpr std::string_view kSameAsFused = "training.optim: adamw_torch_fused computes the same";
constexpr std::string_view kOnlyAdamW =
    "AdamW is the only optimizer; training.optim: adamw_8bit takes the least memory";

constexpr std::array kForeignOptimizers = {
    ForeignOption{"adafactor", kOnlyAdamW},
    ForeignOption{"adamw_anyprecision", "training.optim_moments_dtype says how adamw_torch keeps its moments"},
    ForeignOption{"adamw_apex_fused", kSameAsFused},
    ForeignOption{"adamw_hf", kSameAsFused},
    ForeignOption{"adamw_torch_4bit", "training.optim: adamw_8bit is the smallest state there is"},
    ForeignOption{"adamw_torch_8bit", "torchao's arithmetic; training.optim: adamw_8bit is bitsandbytes'"},
    ForeignOption{"adamw_torch_npu_fused", kSameAsFused},
    ForeignOption{"adamw_torch_xla", kSameAsFused},
    ForeignOption{"ademamix", kOnlyAdamW},
    ForeignOption{"ademamix_8bit", kOnlyAdamW},
    ForeignOption{"lion_32bit", kOnlyAdamW},
    ForeignOption{"lion_8bit", kOnlyAdamW},
    ForeignOption{"paged_adamw", "training.optim: paged_adamw_32bit or paged_adamw_8bit"},
    ForeignOption{"paged_ademamix_32bit", kOnlyAdamW},
    ForeignOption{"paged_ademamix_8bit", kOnlyAdamW},
    ForeignOption{"paged_lion_32bit", kOnlyAdamW},
    ForeignOption{"paged_lion_8bit", kOnlyAdamW},
    ForeignOption{"sgd", kOnlyAdamW},
};

static_assert(std::ranges::is_sorted(kForeignOptimizers, {}, &ForeignOption::name));
static_assert(std::ranges::is_sorted(kForeignOptions, {}, &ForeignOption::name));

std::string_view advice_of(std::string_view name, std::span<const ForeignOption> of) {
  const auto found = std::ranges::lower_bound(of, name, {}, &ForeignOption::name);
  return found != of.end() && found->name == name ? found->advice : std::string_view();
}

}  // namespace

std::string_view foreign_option_advice(std::string_view name) {
  return advice_of(name, kForeignOptions);
}

std::string_view foreign_optimizer_advice(std::string_view name) {
  return advice_of(name, kForeignOptimizers);
}

}  // namespace qshard
