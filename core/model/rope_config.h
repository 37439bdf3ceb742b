#pragma once

#include <cstdint>

namespace qshard {

/// How the frequencies of the rotary position embedding are changed for long contexts (`rope_type`): `standard` is
/// config.json's "default", that is not at all.
enum class RopeType : std::uint8_t { standard, linear, dynamic, yarn, llama3 };

/// The rotary position embedding of a model. A field that its type does not use keeps its default.
struct RopeConfig {
  RopeType type = RopeType::standard;
  double theta = 10000;  // the base of the frequencies
  double factor = 1;     // all but standard: how many times longer the context is
  /// dynamic, yarn, llama3: the positions that the model was trained on before.
  std::int64_t original_max_position_embeddings = 0;
  double low_freq_factor = 1;   // llama3
  double high_freq_factor = 1;  // llama3
  double beta_fast = 32;        // yarn: turns over the original positions above which a plane is left alone
  double beta_slow = 1;         // yarn: turns below which a plane is divided by `factor` whole
  bool truncate = true;         // yarn: the two bounds are rounded outwards to whole planes
  double attention_factor = 1;  // yarn: cos and sin are multiplied by it
};

}  // namespace qshard
