#pragma once

#include <span>

#include "core/model/model_config.h"
#include "core/training/token_batch.h"
#include "reference/matrix.h"

namespace qshard::reference {

/// The values of make_rope_angles rounded to the compute dtype, [positions, head_dim / 2].
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
/// products and sums rounded to `compute`. x: [tokens, any number of heads * head_dim]. first_positions: of each row's
/// first token, where earlier tokens of the row are not in the batch; empty: 0. Deterministic on any number of threads.
/// Throws Error(bad_input) for a row longer than the table.
template <typename T>
void rope_forward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& x,
                  std::span<const std::int64_t> first_positions = {});

/// The gradient in place: the rotation by the opposite angle.
template <typename T>
void rope_backward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& dx);

}  // namespace qshard::reference
