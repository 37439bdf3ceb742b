#pragma once

#include <memory>

#include "core/model/model_config.h"
#include "core/training/decoder.h"
#include "reference/sharded_step.h"

namespace qshard::reference {

/// A decoder that keeps every layer's keys and values: a token costs one pass over one position. Its logits are those
/// of the whole row up to the order of float sums, which Eigen chooses by the number of rows of a product: about 1e-6
/// of the largest logit in f32, and where a value is rounded to 16 bits on the other side, what that makes of it.
/// `step` must outlive it.
///
/// Where the rotary embedding depends on the length of the row (dynamic) and a row outgrows the length that the model
/// was trained for, each token costs a pass over the whole rows, since the keys so far turn by other angles then.
std::unique_ptr<Decoder> make_decoder(ShardedStep& step, const ModelConfig& config, std::int64_t rows,
                                      std::int64_t max_tokens);

}  // namespace qshard::reference
