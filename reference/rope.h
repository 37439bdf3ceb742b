#pragma once

#include <vector>

#include "core/model/model_config.h"
#include "core/training/token_batch.h"
#include "reference/matrix.h"

namespace qshard::reference {

/// Radians a position for each of the head_dim / 2 planes of rotation, in float as Hugging Face computes them:
///   f_i = 1 / rope_theta^(2 i / head_dim).
/// With llama3 scaling (Llama 3.1; transformers' _compute_llama3_parameters) by wavelength w_i = 2 pi / f_i, with
/// n = original_max_position_embeddings:
///   w_i < n / high_freq_factor   f_i
///   w_i > n / low_freq_factor    f_i / factor
///   in between                   (1 - s) f_i / factor + s f_i,
///                                s = (n / w_i - low_freq_factor) / (high_freq_factor - low_freq_factor).
std::vector<float> rope_frequencies(const ModelConfig& config);

/// cos and sin of position * frequency, [positions, head_dim / 2]: the angle and its cosine in float, then rounded to
/// the compute dtype.
template <typename T>
struct RopeTable {
  Matrix<T> cos;
  Matrix<T> sin;
};

template <typename T>
RopeTable<T> make_rope_table(const ModelConfig& config, std::int64_t positions, DType compute);

/// Rotary position embedding (arXiv 2104.09864) in place, with the halves of a head as the two coordinates (Hugging
/// Face's rotate_half): for i < head_dim / 2 and the token's position in its row
///   (x_i, x_{i + head_dim / 2}) -> (x_i cos - x_{i + head_dim / 2} sin,  x_{i + head_dim / 2} cos + x_i sin),
/// products and sums rounded to `compute`. x: [tokens, any number of heads * head_dim]. Deterministic on any number of
/// threads. Throws Error(bad_input) for a row longer than the table.
template <typename T>
void rope_forward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& x);

/// The gradient in place: the rotation by the opposite angle.
template <typename T>
void rope_backward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& dx);

}  // namespace qshard::reference
