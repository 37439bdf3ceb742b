#pragma once

#include <cstdint>

#include "optimized/llama_layer/layer_pass.h"

// The dropout masks of a layer's adapters lie in one piece, one projection's after the other.
namespace qshard::optimized {

/// Makes the masks of all adapters and tokens, unless they are there or nothing is dropped.
void make_layer_masks(const LayerPass& pass);

/// A projection's mask from token `first` on; null where nothing is dropped and in a dry run.
[[nodiscard]] const std::uint8_t* layer_mask(const LayerPass& pass, Projection role, std::int64_t first);

}  // namespace qshard::optimized
