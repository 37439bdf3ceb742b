#pragma once

#include <cstdint>

#include "core/model/model_config.h"
#include "optimized/key_value_cache.h"
#include "optimized/llama_layer.h"
#include "optimized/step_resources.h"

namespace qshard::optimized {

/// What decode_layer() needs besides weights and activations: one new token of each row of the caches. All pointers are
/// device memory and may change their contents between the launches of a captured graph.
struct DecodeContext {
  const ModelConfig* config = nullptr;
  KeyValueCacheShape cache;
  const std::int32_t* positions = nullptr;  // [rows] of the new tokens in their rows
  const std::int32_t* lengths = nullptr;    // [rows] positions + 1
  const float* cos = nullptr;               // as in LayerContext
  const float* sin = nullptr;
  std::int64_t layer = 0;
};

/// One layer's keys and values, [rows, capacity, kv_heads, head_dim] each; null in a dry run.
struct LayerCache {
  void* keys = nullptr;
  void* values = nullptr;
};

/// The activations between two layers: x = residual + branch, [rows, hidden] each, not added yet.
struct DecodeActivations {
  void* residual = nullptr;
  void* branch = nullptr;
  bool has_branch = false;  // false: x = residual
};

/// One layer over one new token a row without dropout, as layer_forward() over whole rows but for the order of sums.
/// Puts the tokens' keys and values into the cache. Deterministic; may be captured into a graph after a first call.
void decode_layer(const StepResources& resources, const DecodeContext& context, const LayerWeights& weights,
                  const LayerCache& cache, DecodeActivations& activations);

}  // namespace qshard::optimized
