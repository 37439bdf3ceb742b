#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "core/formats/hf_checkpoint.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// What an adapter adds to one weight: scaling * B A, and with a magnitude (DoRA) the lengths of the rows of the sum.
struct WeightDelta {
  Tensor a;
  Tensor b;
  double scaling = 0;
  std::optional<Tensor> magnitude;
};

/// What an adapter adds to one bias: scaling * values.
struct BiasDelta {
  Tensor values;
  double scaling = 0;
};

/// What a PEFT directory changes in a checkpoint, by the names of the checkpoint's tensors.
struct AdapterChanges {
  std::map<std::string, WeightDelta, std::less<>> weights;
  std::map<std::string, BiasDelta, std::less<>> biases;
  std::map<std::string, Tensor, std::less<>> whole;  // tensors that take the place of the base's
  bool unties = false;                               // embedding and output head were one table and are two now

  [[nodiscard]] bool contains(std::string_view name) const {
    return weights.contains(name) || biases.contains(name) || whole.contains(name);
  }
};

/// Reads what a PEFT directory changes. Of a family that can be run the adapter has what each module that it targets
/// needs; of any other a module that it names must have a weight in the checkpoint, 4-bit or not, of a shape that fits.
/// Embedding and output head that were trained whole, or saved along because the vocabulary was resized, take the place
/// of the base's; where the base ties them and they differ afterwards, the head becomes a tensor of its own, as in
/// PEFT. Throws Error(bad_input) naming file and tensor for a part that lacks its other parts, a target that lacks all
/// of them, lora_bias on a layer without a bias (which PEFT does not merge either), LoRA on a tied table, and anything
/// else that the file holds.
AdapterChanges read_adapter_changes(const std::filesystem::path& adapter, const HfCheckpoint& checkpoint);

}  // namespace qshard
