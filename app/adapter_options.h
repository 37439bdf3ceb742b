#pragma once

#include "core/formats/adapter_config.h"
#include "core/model/model_config.h"
#include "core/run/run_config.h"

namespace qshard {

/// The adapter that a run's lora.* keys ask for, without the name of its base.
AdapterConfig new_adapter_config(const RunConfig& config);

/// Throws Error(bad_input) for a part of those keys that would do nothing on this model: a name of target_modules or
/// exclude_modules that is no linear layer's, a layer of layers_to_transform beyond the last, a key of rank_pattern or
/// alpha_pattern that no adapted layer matches.
void check_new_adapter(const RunConfig& config, const ModelConfig& model);

/// Throws Error(bad_input) naming a lora.* key that the run gives and the adapter that it starts from contradicts.
/// target_modules, exclude_modules and layers_to_transform may be spelled otherwise where they choose the same layers.
/// lora_dropout may differ: it is the run's.
void check_agrees(const RunConfig& config, const AdapterConfig& adapter, const ModelConfig& model);

}  // namespace qshard
