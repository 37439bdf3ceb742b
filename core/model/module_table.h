#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/model_config.h"

namespace qshard {

/// The linear layers of a decoder layer, in the order in which they are stored, sharded and applied.
enum class Projection : std::uint8_t { q, k, v, o, gate, up, down };
inline constexpr std::size_t kProjections = 7;

/// A linear layer of the decoder: y = W x + b with W [out, in] and, where it has a bias, b [out].
struct LinearModule {
  std::string name;  // in layer_modules "self_attn.q_proj", in linear_modules "model.layers.0.self_attn.q_proj"
  std::int64_t out = 0;
  std::int64_t in = 0;
  bool bias = false;
  Projection role = Projection::q;
};

/// The table of one decoder layer, the same for all layers of a model; index = role. This is the one place that knows
/// names, shapes and biases: its weight is "<name>.weight" in the checkpoint and its bias "<name>.bias".
std::array<LinearModule, kProjections> layer_modules(const ModelConfig& config);

/// The same table for all layers of the model, one layer after the other, with full names. These modules are what is
/// quantized and what adapters may target; the output head is not among them.
std::vector<LinearModule> linear_modules(const ModelConfig& config);

/// "self_attn.q_proj", ..., "mlp.down_proj": the module's name within model.layers.N.
std::string_view module_name(Projection role);

/// "model.layers.<layer>.<module>".
std::string module_path(std::int64_t layer, std::string_view module);

}  // namespace qshard
