#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/json.h"
#include "core/model/model_config.h"

namespace qshard {

/// What transformers puts in where config.json leaves a key out. (A key that is there but null is another matter: it
/// means "as many as there are heads", "hidden_size / heads" or "no window".)
struct FamilyDefaults {
  std::optional<std::int64_t> num_key_value_heads;  // none: as many as there are heads
  std::optional<std::int64_t> head_dim;             // none: hidden_size / num_attention_heads
  std::int64_t max_position_embeddings = 0;
  std::optional<std::int64_t> sliding_window;
};
FamilyDefaults family_defaults(ModelFamily family);

/// The family of that model_type, if it can be run.
std::optional<ModelFamily> find_family(std::string_view model_type);

/// The family that config.json's model_type names. Throws Error(bad_input), naming the known ones, for another.
ModelFamily read_family(const JsonObject& fields);

/// Fills in which linear layers have a bias and whether the heads of q and k are normalized, as the family has it:
///   llama    attention_bias (q, k, v and o), mlp_bias
///   mistral  none
///   qwen2    q, k and v always
///   qwen3    attention_bias (q, k, v and o); RMSNorm of the heads of q and k
void read_biases_and_norms(const JsonObject& fields, ModelConfig& config);

/// Fills in the sliding window of config.family's attention and the layers that have it:
///   llama         none
///   mistral       sliding_window in every layer, null for none
///   qwen2, qwen3  sliding_window where use_sliding_window is set, in the layers that layer_types calls
///                 "sliding_attention", or from max_window_layers on
/// Throws Error(bad_input) for a window below 1 and for layer_types of another length or with another kind of layer.
void read_sliding_window(const JsonObject& fields, ModelConfig& config);

}  // namespace qshard
