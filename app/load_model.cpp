#include "app/load_model.h"

#include <utility>

#include <fmt/ranges.h>

#include "app/adapter_directory.h"
#include "app/device_engine.h"
#include "app/freed_memory.h"
#include "core/base/error.h"
#include "core/formats/adapter_targets.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/checkpoint_check.h"
#include "core/formats/peft_adapter.h"
#include "core/run/engine_options.h"
#include "reference/dequantize.h"
#include "reference/sharded_engine.h"
#include "reference/worker_threads.h"

namespace qshard {
namespace {

void check_agrees(const RunConfig& config, std::string_view key, bool agrees, const std::string& adapter_value) {
  if (config.has(key) && !agrees) {
    fail_input("{}: the adapter that the run starts from has {}; leave the key out", config.where(key), adapter_value);
  }
}

void check_agrees(const RunConfig& config, const AdapterConfig& adapter) {
  check_agrees(config, "lora.r", config.lora.r == adapter.r, fmt::format("r {}", adapter.r));
  check_agrees(config, "lora.lora_alpha", config.lora.alpha == adapter.lora_alpha,
               fmt::format("lora_alpha {}", adapter.lora_alpha));
  check_agrees(config, "lora.use_dora", config.lora.use_dora == adapter.use_dora,
               fmt::format("use_dora {}", adapter.use_dora));
  check_agrees(config, "lora.lora_bias", config.lora.lora_bias == adapter.lora_bias,
               fmt::format("lora_bias {}", adapter.lora_bias));
  check_agrees(config, "lora.modules_to_save", config.lora.modules_to_save == adapter.modules_to_save,
               fmt::format("modules_to_save [{}]", fmt::join(adapter.modules_to_save, ", ")));
}

AdapterConfig new_adapter_config(const RunConfig& config) {
  AdapterConfig adapter;
  adapter.r = config.lora.r;
  adapter.lora_alpha = config.lora.alpha;
  adapter.lora_dropout = config.lora.dropout;
  const std::vector<std::string>& targets = config.lora.target_modules;
  if (targets.size() == 1 && targets.front().find_first_of("\\()[]|*+?^$") != std::string::npos) {
    adapter.target_pattern = targets.front();
  } else {
    adapter.target_modules = targets;
  }
  adapter.use_rslora = config.lora_use_rslora;
  adapter.exclude_modules = config.lora_exclude_modules;
  adapter.layers_to_transform = config.lora_layers_to_transform;
  for (const std::string& text : config.lora_rank_pattern) {
    adapter.rank_pattern[text.substr(0, text.rfind('='))] = std::stoll(text.substr(text.rfind('=') + 1));
  }
  for (const std::string& text : config.lora_alpha_pattern) {
    adapter.alpha_pattern[text.substr(0, text.rfind('='))] = std::stod(text.substr(text.rfind('=') + 1));
  }
  adapter.use_dora = config.lora.use_dora;
  adapter.lora_bias = config.lora.lora_bias;
  adapter.modules_to_save = config.lora.modules_to_save;
  if (config.lora.start == LoraStart::gaussian) adapter.init_lora_weights = "gaussian";
  adapter.base_model_name_or_path = base_model_name(config.model_name_or_path, std::nullopt);
  return adapter;
}

/// An output head that is held in 4 bits comes out dequantized straight to the run's dtype, as the other 4-bit weights
/// do for a product in that dtype.
void dequantize_head(HfCheckpoint& checkpoint, DType dtype) {
  const std::string head = "lm_head.weight";
  if (!has_weight4bit(checkpoint, head)) return;
  checkpoint.replace(head, reference::dequantize(read_weight4bit(checkpoint, head).view(), dtype));
}

std::unique_ptr<TrainingEngine> make_engine(const RunConfig& config, HfCheckpoint& checkpoint,
                                            const EngineOptions& options, const RunBounds& bounds, RankLink* link) {
  dequantize_head(checkpoint, options.dtype);
  if (link != nullptr && runs_on_device(config)) return make_device_engine(config, checkpoint, options, bounds, *link);
  for (const auto& [key, is_given] : {std::pair("fsdp.fsdp_offload_params", options.offload),
                                      std::pair("fsdp.transport", options.transport != Transport::automatic)}) {
    if (is_given && link != nullptr)
      fail_input("{}: it is for GPUs, and this run is on the CPU; leave it out", config.where(key));
  }
  keep_freed_memory();
  return reference::make_sharded_engine(checkpoint, options, link);
}

}  // namespace

EngineOptions resolve_options(const RunConfig& config, const ModelConfig& model,
                              const std::optional<AdapterConfig>& adapter) {
  EngineOptions options = engine_options(config, model.dtype.value_or(DType::f32));
  if (runs_on_device(config) && !config.has("quantization.bnb_4bit_compute_dtype"))
    options.compute_dtype = options.dtype;
  if (model.prequantized_4bit) options.quantization.load_in_4bit = false;  // what it keeps in 16 bits stays so
  options.lora = lora_options(adapter ? *adapter : new_adapter_config(config), model);
  if (config.has("lora.lora_dropout")) options.lora.dropout = config.lora.dropout;
  return options;
}

LoadedModel load_model(const RunConfig& config, const std::string& adapter, bool load_adapter, RankLink* link,
                       const RunBounds& bounds) {
  reference::start_worker_threads();
  HfCheckpoint checkpoint = HfCheckpoint::open(config.model_name_or_path);
  check_checkpoint(checkpoint);
  if (adapter.empty()) {
    const EngineOptions options = resolve_options(config, checkpoint.config(), std::nullopt);
    auto engine = make_engine(config, checkpoint, options, bounds, link);
    return {std::move(checkpoint), options, new_adapter_config(config), std::move(engine)};
  }
  PeftAdapter saved = read_adapter(adapter, checkpoint.config());
  check_agrees(config, saved.config);
  const EngineOptions options = resolve_options(config, checkpoint.config(), saved.config);
  auto engine = make_engine(config, checkpoint, options, bounds, link);
  if (load_adapter) engine->load_adapter(saved.tensors);
  saved.config.lora_dropout = options.lora.dropout;
  saved.config.base_model_name_or_path = base_model_name(config.model_name_or_path, saved.config);
  return {std::move(checkpoint), options, std::move(saved.config), std::move(engine)};
}

}  // namespace qshard
