#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/token_rows.h"

namespace qshard::optimized {

inline constexpr std::int64_t kMostHeadDim = 256;

/// `heads` query heads share `kv_heads` key/value heads: query head h reads key/value head h / (heads / kv_heads).
/// A token's query heads lie one after the other, `head_dim` elements each, and so do its key heads and value heads;
/// the strides count elements from one token to the next.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;   // 1 to kMostHeadDim
  std::int64_t window = 0;     // position i sees the positions j with i - window < j <= i; 0: all j <= i
  std::int64_t q_stride = 0;   // of q and dq
  std::int64_t kv_stride = 0;  // of k, v, dk and dv
  std::int64_t o_stride = 0;   // of o and dout
  DType dtype = DType::bf16;   // f32, bf16 or f16

  bool operator==(const AttentionShape&) const = default;
};

/// Device memory that attention_forward() and attention_backward() of these sizes need, in bytes; linear in `tokens`.
std::size_t attention_workspace_bytes(const AttentionShape& shape, std::int64_t tokens, std::int64_t rows,
                                      std::int64_t longest);

/// Causal attention within each row of tokens by itself (arXiv 1706.03762, 2305.13245). For each query head and
/// position i of a row, over the positions j that i sees,
///   p_ij = softmax over j (q_i . k_j / sqrt(head_dim)),  o_i = sum_j p_ij v_j,
///   lse_i = log sum_j exp(q_i . k_j / sqrt(head_dim)).
/// o [tokens, heads * head_dim] is rounded to dtype; lse [heads, tokens]. Arithmetic in float; 16-bit kernels round
/// exp(score - greatest score so far) to dtype before they multiply it with v, where the reference rounds p.
/// workspace: attention_workspace_bytes(), aligned to 256 bytes. Deterministic: every element is summed by one thread
/// block in an order that only the sizes give. Ordered with `stream`, nothing allocated or awaited; may be captured
/// into a graph. Throws Error(bad_input)
/// for sizes, strides or pointers that do not fit.
void attention_forward(const AttentionShape& shape, const TokenRows& rows, const void* q, const void* k, const void* v,
                       void* o, float* lse, void* workspace, cudaStream_t stream);

/// Gradients given dout, with the probabilities computed again from lse:
///   dv_j = sum_i p_ij do_i,  dp_ij = do_i . v_j,  ds_ij = p_ij (dp_ij - do_i . o_i),
///   dq_i = sum_j ds_ij k_j / sqrt(head_dim),  dk_j = sum_i ds_ij q_i / sqrt(head_dim),
/// dk and dv summed over the query heads of their group. p and ds are rounded to dtype before they are multiplied (by
/// 16-bit kernels), the results at the end.
/// dq, dk and dv may not overlap anything else. Otherwise as attention_forward().
void attention_backward(const AttentionShape& shape, const TokenRows& rows, const void* q, const void* k, const void* v,
                        const void* o, const float* lse, const void* dout, void* dq, void* dk, void* dv,
                        void* workspace, cudaStream_t stream);

}  // namespace qshard::optimized
