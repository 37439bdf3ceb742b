#pragma once

#include <string>

#include "optimized/attention/attention_table.h"

// The table's row that calls cuDNN (9.19 was tried) through cudnn-frontend; only in builds that have both.
namespace qshard::optimized {

/// How a backward pass is cut into calls, each with the same number of rows and of key/value heads: cuDNN's
/// deterministic backward pass keeps the whole [s, s] matrix of dp of every query head of a call.
struct CudnnCut {
  std::int64_t rows = 0;  // of a call; 0: not even one group of heads of one row fits
  std::int64_t kv_heads = 0;
};

/// All heads of as many rows as 64 MiB of dp hold, or of one row as many groups of heads, one at least where 256 MiB
/// hold it.
CudnnCut cut_for_cudnn(const AttentionShape& shape, const AttentionSizes& sizes);

/// The workspace's two parts: log-sum-exps by row, and what one of cuDNN's graphs may need.
std::size_t cudnn_statistics_bytes(const AttentionShape& shape, const AttentionSizes& sizes);
std::size_t cudnn_graph_bytes(const AttentionShape& shape, const AttentionSizes& sizes);

std::string cudnn_attention_refuses_shape(const AttentionShape& shape, const AttentionSizes& sizes);

/// Why the current device cannot compute this by cuDNN; builds the graphs where they are not built yet.
std::string cudnn_attention_refuses_device(AttentionPlans& plans, const AttentionShape& shape,
                                           const AttentionSizes& sizes);
std::size_t cudnn_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes);
void cudnn_attention_forward(AttentionPlans& plans, const AttentionShape& shape, const TokenRows& rows,
                             const AttentionTensors& tensors, void* workspace, cudaStream_t stream);
void cudnn_attention_backward(AttentionPlans& plans, const AttentionShape& shape, const TokenRows& rows,
                              const AttentionTensors& tensors, void* workspace, cudaStream_t stream);

}  // namespace qshard::optimized
