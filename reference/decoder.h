#pragma once

#include <memory>

#include "core/training/decoder.h"
#include "reference/sharded_step.h"

namespace qshard::reference {

/// The specification of a decoder: it keeps the tokens and nothing else, and runs all of a row again for each new one.
/// A decoder that keeps keys and values gives the same logits, since a token never sees those after it. `step` must
/// outlive it.
std::unique_ptr<Decoder> make_decoder(ShardedStep& step, std::int64_t vocab_size, std::int64_t rows,
                                      std::int64_t max_tokens);

}  // namespace qshard::reference
