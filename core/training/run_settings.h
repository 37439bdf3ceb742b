#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/json.h"
#include "core/formats/adapter_config.h"
#include "core/formats/hf_checkpoint.h"
#include "core/run/engine_options.h"
#include "core/run/run_config.h"

namespace qshard {

/// What a checkpoint's numbers depend on besides the rows, as names and values.
struct RunSettings {
  Json fixed = Json::object();       // another value makes another run of it: base weights, dtypes, quantization, LoRA
  Json adjustable = Json::object();  // may be changed on the way: the schedule and the optimizer's numbers

  bool operator==(const RunSettings&) const = default;
};

/// The settings in effect. `base_weights` is base_weights_hash() of the checkpoint. Left out is what never changes a
/// bit, such as quant_storage and gradient_checkpointing, and where things lie.
RunSettings run_settings(const RunConfig& config, const EngineOptions& options, const AdapterConfig& adapter,
                         std::string_view base_weights);

/// 16 hexadecimal digits over all bytes of the checkpoint's weight files, in the order of their names, and over the
/// values of its config.json. Reads everything once, by several threads.
std::string base_weights_hash(const HfCheckpoint& checkpoint);

/// "lora.lora_alpha was 8 and is now 64", for each name whose value differs or is on one side only.
std::vector<std::string> differing_settings(const Json& saved, const Json& now);

}  // namespace qshard
