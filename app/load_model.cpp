#include "app/load_model.h"

#include <utility>

#include "app/adapter_directory.h"
#include "app/adapter_options.h"
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

/// The adapter that a new run makes, with the name of its base.
AdapterConfig named_adapter_config(const RunConfig& config) {
  AdapterConfig adapter = new_adapter_config(config);
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
                                            const EngineOptions& options, const RunBounds& bounds, RankLink* link,
                                            std::string& note) {
  dequantize_head(checkpoint, options.dtype);
  if (link != nullptr && runs_on_device(config)) {
    return make_device_engine(config, checkpoint, options, bounds, *link, note);
  }
  for (const auto& [key, is_given] : {std::pair("fsdp.fsdp_offload_params", options.offload),
                                      std::pair("fsdp.transport", options.transport != Transport::automatic),
                                      std::pair("quantization.cache_dir", !config.quantization_cache_dir.empty())}) {
    if (is_given && link != nullptr)
      fail_input("{}: it is for GPUs, and this run is on the CPU; leave it out", config.where(key));
  }
  keep_freed_memory();
  return reference::make_sharded_engine(checkpoint, options, link);
}

}  // namespace

EngineOptions resolve_options(const RunConfig& config, const ModelConfig& model,
                              const std::optional<AdapterConfig>& adapter) {
  if (adapter)
    check_agrees(config, *adapter, model);
  else
    check_new_adapter(config, model);
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
  std::string note;
  if (adapter.empty()) {
    const EngineOptions options = resolve_options(config, checkpoint.config(), std::nullopt);
    auto engine = make_engine(config, checkpoint, options, bounds, link, note);
    return {std::move(checkpoint), options, named_adapter_config(config), std::move(engine), {}, std::move(note)};
  }
  PeftAdapter saved = read_adapter(adapter, checkpoint.config());
  const EngineOptions options = resolve_options(config, checkpoint.config(), saved.config);
  auto engine = make_engine(config, checkpoint, options, bounds, link, note);
  if (load_adapter) engine->load_adapter(saved.tensors);
  saved.config.lora_dropout = options.lora.dropout;
  saved.config.base_model_name_or_path = base_model_name(config.model_name_or_path, saved.config);
  return {std::move(checkpoint),        options,        std::move(saved.config), std::move(engine),
          std::move(saved.saved_along), std::move(note)};
}

}  // namespace qshard
