#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/formats/adapter_config.h"
#include "core/formats/hf_checkpoint.h"
#include "core/launch/rank_link.h"
#include "core/run/engine_options.h"
#include "core/run/run_config.h"
#include "core/training/batch_bound.h"
#include "core/training/training_engine.h"

namespace qshard {

/// A base model in an engine, with an adapter: the given one, or a new one that changes nothing yet.
struct LoadedModel {
  HfCheckpoint checkpoint;  // with a 4-bit output head dequantized
  EngineOptions options;
  AdapterConfig adapter_config;  // to be saved with the adapter
  std::unique_ptr<TrainingEngine> engine;
  std::vector<std::string> saved_along;  // tables that the adapter's file has though nothing says that it trained them
  std::string note;                      // about quantization.cache_dir, if there is something to tell
};

/// Loads config.model_name_or_path; `adapter` names a PEFT directory whose rank, alpha and target modules then hold, or
/// is empty. With load_adapter false the engine is made for that adapter but its tensors are left for later. Throws
/// Error(bad_input) where a key of the configuration contradicts the adapter. Collective over `link`, which must
/// outlive the engine; nullptr: this process holds all ranks, on the CPU. bounds: of the batches, for a GPU's memory.
LoadedModel load_model(const RunConfig& config, const std::string& adapter, bool load_adapter = true,
                       RankLink* link = nullptr, const RunBounds& bounds = {});

/// The engine's options for a model and an adapter, without reading any weight. Throws as check_agrees() and
/// check_new_adapter() do.
EngineOptions resolve_options(const RunConfig& config, const ModelConfig& model,
                              const std::optional<AdapterConfig>& adapter);

}  // namespace qshard
