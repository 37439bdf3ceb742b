#pragma once

#include <string>
#include <vector>

#include "core/model/lora_options.h"
#include "core/model/model_parameters.h"
#include "core/model/module_table.h"

namespace qshard {

/// What is trained of the adapter of one linear layer, by PEFT's names after the layer's own, `path`: .lora_A.weight
/// [r, in] and .lora_B.weight [out, r]; with lora_bias .lora_B.bias [out]; with use_dora .lora_magnitude_vector [out].
/// Files, shards and gradients all follow this list.
std::vector<Parameter> adapter_parameters(const LoraOptions& lora, const std::string& path, const LinearModule& module,
                                          DType dtype);

}  // namespace qshard
