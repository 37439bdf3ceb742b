#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/formats/hf_checkpoint.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// What an adapter adds to one weight: scaling * B A.
struct WeightDelta {
  Tensor a;
  Tensor b;
  double scaling = 0;
};

/// What a PEFT directory adds to the weights of a checkpoint, by the weights' names. Of a family that can be run the
/// adapter is held to its modules; of any other each module "base_model.model.<module>.lora_A.weight" must have a
/// "<module>.weight" in the checkpoint, 4-bit or not, of a shape that fits. Throws Error(bad_input) naming file and
/// tensor for anything else than LoRA's A and B (DoRA, biases, modules saved whole), a part that lacks its other part,
/// a target that lacks both, and an output head that is tied to the embedding.
std::map<std::string, WeightDelta> read_weight_deltas(const std::filesystem::path& adapter,
                                                      const HfCheckpoint& checkpoint);

}  // namespace qshard
