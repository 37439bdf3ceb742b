#pragma once

#include <cstdint>
#include <vector>

#include "core/model/model_config.h"

namespace qshard {

/// Radians a position for each of the head_dim / 2 planes of rotation, in float as Hugging Face computes them
/// (transformers' modeling_rope_utils), with d = head_dim:
///   f_i = 1 / theta^(2 i / d),
/// and by rope type
///   linear   f_i / factor
///   dynamic  f_i with theta (factor n / original - (factor - 1))^(d / (d - 2)) for theta, where n is the greater of
///            `length` and original = original_max_position_embeddings (arXiv 2309.00071, appendix)
///   yarn     f_i (1 - ramp_i) + f_i / factor ramp_i with ramp_i = clamp((i - low) / (high - low), 0, 1), where low and
///            high are the planes that turn beta_fast and beta_slow times over the original positions:
///            d ln(original / (2 pi beta)) / (2 ln theta), rounded outwards where truncate is set, low at least 0, high
///            at most d - 1 (arXiv 2309.00071)
///   llama3   by wavelength w_i = 2 pi / f_i, with n = original_max_position_embeddings:
///              w_i < n / high_freq_factor   f_i
///              w_i > n / low_freq_factor    f_i / factor
///              in between                   (1 - s) f_i / factor + s f_i,
///                                           s = (n / w_i - low_freq_factor) / (high_freq_factor - low_freq_factor).
/// `length` is that of the longest row that is turned with them; only dynamic depends on it.
std::vector<float> rope_frequencies(const ModelConfig& config, std::int64_t length);

/// cos and sin of position * frequency, both [positions, head_dim / 2] row-major: the angle and its cosine in float,
/// times the attention factor (yarn), not yet rounded to a compute dtype.
struct RopeAngles {
  std::vector<float> cos;
  std::vector<float> sin;
};

/// The table for rows of up to `positions` tokens, which is also the length that dynamic looks at: there a table must
/// be made for the longest row of each batch, where the other types need one table for all.
RopeAngles make_rope_angles(const ModelConfig& config, std::int64_t positions);

}  // namespace qshard
