#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "core/model/model_config.h"

namespace qshard::bench {

/// A Llama of a known model's shape, from its config.json; `layers` above 0: with so many. `model`: llama-2-70b,
/// llama-2-7b or llama-3-8b.
inline ModelConfig model_shape(const std::string& model, std::int64_t layers) {
  // hidden, intermediate, heads, key-value heads, vocabulary, layers
  static const std::map<std::string, std::array<std::int64_t, 6>> kShapes{
      {"llama-2-70b", {8192, 28672, 64, 8, 32000, 80}},
      {"llama-2-7b", {4096, 11008, 32, 32, 32000, 32}},
      {"llama-3-8b", {4096, 14336, 32, 8, 128256, 32}},
  };
  const auto& shape = kShapes.at(model);
  ModelConfig config;
  config.hidden_size = shape[0];
  config.intermediate_size = shape[1];
  config.num_attention_heads = shape[2];
  config.num_key_value_heads = shape[3];
  config.head_dim = shape[0] / shape[2];
  config.vocab_size = shape[4];
  config.num_hidden_layers = layers > 0 ? layers : shape[5];
  config.max_position_embeddings = 1 << 17;
  config.rms_norm_eps = 1e-5;
  return config;
}

}  // namespace qshard::bench
