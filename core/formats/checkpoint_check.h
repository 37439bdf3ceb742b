#pragma once

#include "core/formats/hf_checkpoint.h"

namespace qshard {

/// How many of the decoder layers' linear weights are held in 4 bits.
std::int64_t count_weights4bit(const HfCheckpoint& checkpoint);

/// Holds a checkpoint's tensors to its config.json. Throws Error(bad_input) naming tensor and remedy where
///   - the embedding is 4-bit: only linear layers may be, the output head among them
///   - a tensor is missing, has another shape than config.json asks for, 4-bit or not, or is not floating-point
///   - there is a tensor that config.json has no place for: a bias, a norm, a further layer
void check_tensors(const HfCheckpoint& checkpoint);

/// The same for a checkpoint that is to be run, before anything of it is loaded; and quantization_config must be there
/// if and only if some weight is 4-bit.
void check_checkpoint(const HfCheckpoint& checkpoint);

}  // namespace qshard
