#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/model/model_config.h"
#include "core/model/quantization_options.h"
#include "core/tensor/dtype.h"

namespace qshard {

/// Reads the text of a config.json as transformers 4 and 5 write it; `where` names the file. What the file leaves out
/// takes the default that transformers has for the family (see hf_family.h, hf_rope_config.h); sizes that decide the
/// shape of a weight and that no family leaves out must be there. Throws Error(bad_input) naming file and key for
/// anything that is not computed here: another model_type, activation, rope_type or quantization method.
ModelConfig parse_hf_config(std::string_view text, std::string_view where);

/// The same from a file.
ModelConfig read_hf_config(const std::filesystem::path& path);

/// The same for work tensor by tensor: of a model_type that cannot be run only `text` and `prequantized_4bit` are
/// filled in.
ModelConfig read_any_hf_config(const std::filesystem::path& path);

/// False for what read_any_hf_config gives of a model_type that cannot be run.
bool can_be_run(const ModelConfig& config);

/// The text of `config`'s file, as transformers writes it, without a quantization_config.
std::string config_text(const ModelConfig& config);

/// The same with the quantization_config of a bitsandbytes 4-bit checkpoint; the block size is in its tensors alone.
std::string config_text(const ModelConfig& config, const QuantizationOptions& quantization, DType compute_dtype);

}  // namespace qshard
