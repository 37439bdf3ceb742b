#pragma once

#include <span>

#include "core/training/token_batch.h"
#include "reference/matrix.h"

namespace qshard::reference {

/// `heads` query heads share `kv_heads` key/value heads: query head h reads key/value head h / (heads / kv_heads).
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t window = 0;  // keys that a query sees, its own and those just before it; 0: all before it
};

/// Grouped-query causal attention (arXiv 1706.03762, 2305.13245), within each row of the batch by itself. For each
/// head and each position i of a row
///   p_ij = softmax over j <= i of (q_i . k_j / sqrt(head_dim)),  o_i = sum_j p_ij v_j,
/// with a sliding window (arXiv 2310.06825) over i - window < j <= i.
/// query and the result are [tokens, heads * head_dim], key and value [tokens, kv_heads * head_dim]. As in a fused
/// kernel scores and softmax stay in T; p and o are rounded to `compute`. Works through tiles of queries, so that at
/// most 128 x (length of the row) probabilities exist at once in each thread. Deterministic on any number of threads.
///
/// key_offsets: where the keys and values of each row begin, and the last ones end, where there are more of them than
/// queries: the queries are then the last tokens of their rows. Empty: as the queries lie.
template <typename T>
Matrix<T> attention_forward(const TokenBatch& batch, const AttentionShape& shape, DType compute, const Matrix<T>& query,
                            const Matrix<T>& key, const Matrix<T>& value,
                            std::span<const std::int64_t> key_offsets = {});

template <typename T>
struct AttentionGradients {
  Matrix<T> query;
  Matrix<T> key;
  Matrix<T> value;
};

/// Gradients given dout, with the probabilities computed again rather than kept:
///   dv_j = sum_i p_ij do_i,  dp_ij = do_i . v_j,  ds_ij = p_ij (dp_ij - sum_j p_ij dp_ij),
///   dq_i = sum_j ds_ij k_j / sqrt(head_dim),  dk_j = sum_i ds_ij q_i / sqrt(head_dim),
/// dk and dv summed over the query heads of their group; ds and the three results are rounded to `compute`.
template <typename T>
AttentionGradients<T> attention_backward(const TokenBatch& batch, const AttentionShape& shape, DType compute,
                                         const Matrix<T>& query, const Matrix<T>& key, const Matrix<T>& value,
                                         const Matrix<T>& dout);

}  // namespace qshard::reference
