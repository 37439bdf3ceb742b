#pragma once

#include "core/formats/hf_checkpoint.h"

namespace qshard {

/// How many of the decoder layers' linear weights are held in 4 bits.
std::int64_t count_weights4bit(const HfCheckpoint& checkpoint);

/// Holds a checkpoint that is to be run to its config.json, before anything of it is loaded. Throws Error(bad_input)
/// naming tensor and remedy where
///   - quantization_config is there but no weight is 4-bit, or the other way round
///   - embedding or output head is 4-bit: only the decoder layers' linear weights may be
///   - a tensor is missing or has another shape than config.json asks for, 4-bit or not
///   - there is a tensor that config.json has no place for: a bias, a norm, a further layer
void check_checkpoint(const HfCheckpoint& checkpoint);

}  // namespace qshard
