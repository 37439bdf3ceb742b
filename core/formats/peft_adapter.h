#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/formats/adapter_config.h"
#include "core/model/model_config.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// A LoRA adapter in PEFT's layout: adapter_config.json, and adapter_model.safetensors with, for each
/// parameter of adapter_parameters() and for each module saved whole, a tensor of a floating dtype under its
/// peft_name().
struct PeftAdapter {
  AdapterConfig config;
  NamedTensors tensors;
  std::vector<std::string> saved_along;  // of embed_tokens and lm_head: in the file without being in modules_to_save
};

/// "base_model.model.<parameter>": what PEFT calls the adapter's parameter "<module>.lora_A.weight".
std::string peft_name(std::string_view parameter);

/// The PEFT names of a module's two parameters, "<module>.lora_A.weight" and "<module>.lora_B.weight".
std::string lora_a_name(std::string_view module);
std::string lora_b_name(std::string_view module);

/// All tensors of an adapter's directory, of floating dtypes, under the names that save_pretrained writes: a raw state
/// dict, whose names hold the adapter's ("default"), is read as well. Throws Error(bad_input) naming file and tensor.
NamedTensors read_adapter_tensors(const std::filesystem::path& directory);

/// Reads an adapter's directory and checks that it belongs to the model: the tensors are those of the modules that the
/// configuration targets, with the model's shapes and a floating dtype. Embedding and output head that the file has
/// though the configuration does not name them (PEFT saves them along when the vocabulary was resized) take the place
/// of the base's, as in PEFT: the returned configuration has them in modules_to_save. Throws Error(bad_input) naming
/// file and key or tensor.
PeftAdapter read_adapter(const std::filesystem::path& directory, const ModelConfig& model);

/// Writes both files into a directory that exists, each beside and renamed, with PEFT's own bytes. Errors as those of
/// write_safetensors.
void write_adapter(const std::filesystem::path& directory, const AdapterConfig& config, const NamedTensors& tensors);

}  // namespace qshard
