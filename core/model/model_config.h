#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/dtype.h"

namespace qshard {

/// Llama 3's change of the rotation frequencies for long contexts (`rope_type` "llama3").
struct Llama3RopeScaling {
  double factor = 0;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  std::int64_t original_max_position_embeddings = 0;
};

/// A Llama model as its Hugging Face config.json describes it, checked: sizes are positive, head_dim is even, the
/// key-value heads divide the heads.
struct ModelConfig {
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 0;
  double rope_theta = 0;
  std::optional<Llama3RopeScaling> rope_scaling;
  bool tie_word_embeddings = false;
  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
  std::optional<DType> dtype;      // of the checkpoint's floating tensors, where the file says it
  bool prequantized_4bit = false;  // it has a bitsandbytes 4-bit quantization_config
  std::string text;                // the whole file
};

}  // namespace qshard
