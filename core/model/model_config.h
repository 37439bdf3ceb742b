#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/rope_config.h"
#include "core/tensor/dtype.h"

namespace qshard {

/// The families of decoders that are computed here. Everything in which they differ is a number or a flag of
/// ModelConfig; the name itself decides defaults of config.json and nothing else.
enum class ModelFamily : std::uint8_t { llama, mistral, qwen2, qwen3 };

/// "llama", "mistral", "qwen2", "qwen3": the model_type of config.json.
std::string_view to_string(ModelFamily family);

/// A decoder as its Hugging Face config.json describes it, checked: sizes are positive, head_dim is even, the key-value
/// heads divide the heads.
struct ModelConfig {
  ModelFamily family = ModelFamily::llama;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;  // need not be hidden_size / num_attention_heads
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 0;
  RopeConfig rope;
  std::int64_t sliding_window = 0;     // keys that a query sees, its own included; 0: all before it
  std::vector<bool> layer_has_window;  // where a family mixes, by layer; empty: every layer is like the others
  bool qkv_bias = false;               // q_proj, k_proj and v_proj have a bias (frozen, in the model's dtype)
  bool o_bias = false;                 // o_proj has one
  bool mlp_bias = false;               // gate_proj, up_proj and down_proj have one
  bool qk_norm = false;                // RMSNorm over each head of q and k, before the rotary embedding
  bool tie_word_embeddings = false;
  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
  std::optional<DType> dtype;      // of the checkpoint's floating tensors, where the file says it
  bool prequantized_4bit = false;  // it has a bitsandbytes 4-bit quantization_config
  std::string text;                // the whole file

  /// The sliding window of one decoder layer; 0: none.
  [[nodiscard]] std::int64_t window(std::int64_t layer) const;
};

}  // namespace qshard
