#pragma once

#include "core/base/json.h"
#include "core/model/rope_config.h"

namespace qshard {

/// Reads the rotary position embedding of a config.json in both spellings: transformers 4's `rope_theta` and
/// `rope_scaling` and transformers 5's `rope_parameters`, which holds both. Where both are there rope_scaling counts,
/// as in transformers. What is left out takes transformers' value: theta 10000; original_max_position_embeddings the
/// model's `max_positions`; yarn's attention_factor 0.1 ln(factor) + 1, or the quotient of that with mscale and with
/// mscale_all_dim times the logarithm. Throws Error(bad_input) naming file and key: another rope_type, a missing or
/// impossible number, a model that turns only a part of each head, or each kind of layer by a table of its own.
RopeConfig read_rope_config(const JsonObject& fields, std::int64_t max_positions);

}  // namespace qshard
