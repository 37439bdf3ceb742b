#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/json.h"
#include "core/formats/adapter_config.h"
#include "core/run/engine_options.h"
#include "core/run/run_config.h"

namespace qshard {

/// What a checkpoint's numbers depend on besides the rows, as names and values.
struct RunSettings {
  Json fixed = Json::object();       // another value makes another run of it: base weights, dtypes, quantization, LoRA
  Json adjustable = Json::object();  // may be changed on the way: the schedule and the optimizer's numbers

  bool operator==(const RunSettings&) const = default;
};

/// The settings in effect. `base_weights` is base_weights_hash() of the checkpoint (core/training/base_weights_hash.h).
/// Left out is what never changes a bit, such as quant_storage and gradient_checkpointing, and where things lie.
RunSettings run_settings(const RunConfig& config, const EngineOptions& options, const AdapterConfig& adapter,
                         std::string_view base_weights);

/// "lora.lora_alpha was 8 and is now 64", for each name whose value differs or is on one side only.
std::vector<std::string> differing_settings(const Json& saved, const Json& now);

}  // namespace qshard
