#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/formats/adapter_config.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// What a saved adapter calls its base model, so that another program in another directory finds it: the absolute path
/// of `model`, or the hub's name ("owner/name") that the adapter a run starts from has for it.
std::string base_model_name(const std::string& model, const std::optional<AdapterConfig>& started_from);

/// Writes an adapter as PEFT and transformers expect it: its two files, and the files of the base model's tokenizer.
void save_adapter_directory(const std::filesystem::path& directory, const AdapterConfig& config,
                            const NamedTensors& tensors, const std::filesystem::path& model);

}  // namespace qshard
