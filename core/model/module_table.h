#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/model_config.h"

namespace qshard {

/// A linear layer of the decoder: y = W x with W [out, in]. Its weight is "<name>.weight" in the checkpoint.
struct LinearModule {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  std::int64_t out = 0;
  std::int64_t in = 0;
};

/// The seven linear layers of every decoder layer: q, k, v, o, gate, up, down of layer 0, then of layer 1, and so on.
/// They are what is quantized and what adapters may target; the output head is not among them.
std::vector<LinearModule> linear_modules(const ModelConfig& config);

}  // namespace qshard
