#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/progress.h"
#include "core/formats/hf_checkpoint.h"
#include "core/tensor/tensor_source.h"
#include "core/tensor/weight4bit.h"

namespace qshard {

/// The tensors of a file to be written, and what they look into.
struct ConvertedTensors {
  std::vector<std::pair<std::string, TensorView>> tensors;
  std::vector<Tensor> kept;
  std::deque<Weight4bit> weights;  // a deque: views into them stay valid
};

/// Adds to `converted` what becomes of one tensor of `source`.
using ConvertTensor =
    std::function<void(const TensorSource& source, const std::string& name, ConvertedTensors& converted)>;

/// The 4-bit weight that the tensor is a describing part of (absmax, quant_state, ...), or an empty name.
std::string_view weight4bit_owner(const TensorSource& source, std::string_view name);

/// True where the tensor is one of the parts that describe a bitsandbytes 4-bit weight.
bool is_weight4bit_part(const TensorSource& source, std::string_view name);

/// Converts a safetensors file into a new one. Throws the errors of reading, converting and writing, and
/// Error(bad_input) where `output` exists, or has come to exist by the end; it then stays as it is.
void convert_file(const std::filesystem::path& input, const std::filesystem::path& output, const ConvertTensor& convert,
                  Progress& progress);

/// Converts a model directory file by file (memory: one file's converted tensors) into a new directory, with `config`
/// as its config.json and everything else that is no weight copied. Errors: as convert_file.
void convert_model(const HfCheckpoint& checkpoint, const std::filesystem::path& output, const std::string& config,
                   const ConvertTensor& convert, Progress& progress);

}  // namespace qshard
