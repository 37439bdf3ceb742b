#include "optimized/attention/attention.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "optimized/attention/attention_table.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

void check_attention_shape(const AttentionShape& shape, const AttentionSizes& sizes) {
  constexpr std::int64_t kMostInt = std::numeric_limits<std::int32_t>::max();
  check_floating(shape.dtype, "the dtype of attention");
  check_at_least(shape.kv_heads, 1, "the number of key/value heads of attention");
  check_at_least(shape.heads, 1, "the number of heads of attention");
  check_at_least(shape.head_dim, 1, "the head_dim of attention");
  check_at_least(shape.window, 0, "the window of attention");
  if (shape.heads % shape.kv_heads != 0) {
    fail_input("attention has {} query heads, which are no multiple of its {} key/value heads", shape.heads,
               shape.kv_heads);
  }
  if (shape.head_dim > kMostHeadDim) {
    fail_input("head_dim {} is not supported by attention: use {} or less", shape.head_dim, kMostHeadDim);
  }
  check_at_least(shape.q_stride, shape.heads * shape.head_dim, "the stride of attention's queries");
  check_at_least(shape.kv_stride, shape.kv_heads * shape.head_dim, "the stride of attention's keys and values");
  check_at_least(shape.o_stride, shape.heads * shape.head_dim, "the stride of attention's output");
  check_at_least(sizes.rows, 1, "the number of rows of attention");
  check_at_least(sizes.longest, 1, "the longest row of attention");
  check_at_least(sizes.tokens, sizes.longest, "the number of tokens of attention");
  if (sizes.tokens > sizes.rows * sizes.longest) {
    fail_input("attention has {} tokens, which {} rows of at most {} cannot hold", sizes.tokens, sizes.rows,
               sizes.longest);
  }
  // Positions, tokens and grids are counted in 32 bits; a slot has 16 tokens at least, and a grid 65,535 of them.
  if (sizes.tokens > kMostInt / 4 || shape.window > kMostInt / 4 || sizes.tokens / 16 + sizes.rows > 65535) {
    fail_input("{} tokens in {} rows with window {} are too many for one call of attention", sizes.tokens, sizes.rows,
               shape.window);
  }
}

void check_attention_tensors(const AttentionShape& shape, const AttentionTensors& tensors, bool backward) {
  const std::size_t alignment = size_of(shape.dtype);
  check_pointer(tensors.q, alignment, "the query of attention");
  check_pointer(tensors.k, alignment, "the key of attention");
  check_pointer(tensors.v, alignment, "the value of attention");
  check_pointer(tensors.o, alignment, "the output of attention");
  check_pointer(tensors.lse, sizeof(float), "the log-sum-exp of attention");
  if (!backward) return;
  check_pointer(tensors.dout, alignment, "the gradient of attention's output");
  check_pointer(tensors.dq, alignment, "the gradient of attention's query");
  check_pointer(tensors.dk, alignment, "the gradient of attention's key");
  check_pointer(tensors.dv, alignment, "the gradient of attention's value");
}

std::size_t attention_workspace_bytes(const AttentionShape& shape, std::int64_t tokens, std::int64_t rows,
                                      std::int64_t longest) {
  const AttentionSizes sizes{tokens, rows, longest};
  check_attention_shape(shape, sizes);
  std::size_t most = 0;  // of all that may be chosen: which one depends on the device and on pointers, too
  for (const AttentionKernel& kernel : attention_kernels()) {
    if (kernel.refuses_shape(shape, sizes).empty()) most = std::max(most, kernel.workspace_bytes(shape, sizes));
  }
  return most;
}

void attention_forward(const AttentionShape& shape, const TokenRows& rows, const void* q, const void* k, const void* v,
                       void* o, float* lse, void* workspace, cudaStream_t stream) {
  const AttentionSizes sizes{rows.tokens, rows.rows, rows.longest};
  const AttentionTensors tensors{.q = q, .k = k, .v = v, .o = o, .lse = lse};
  check_attention_shape(shape, sizes);
  check_attention_tensors(shape, tensors, false);
  check_pointer(rows.offsets, alignof(std::int32_t), "the offsets of attention's rows");
  check_pointer(workspace, 256, "the workspace of attention");
  choose_attention_kernel(shape, sizes, tensors).forward(shape, rows, tensors, workspace, stream);
}

void attention_backward(const AttentionShape& shape, const TokenRows& rows, const void* q, const void* k, const void* v,
                        const void* o, const float* lse, const void* dout, void* dq, void* dk, void* dv,
                        void* workspace, cudaStream_t stream) {
  const AttentionSizes sizes{rows.tokens, rows.rows, rows.longest};
  const AttentionTensors tensors{.q = q,
                                 .k = k,
                                 .v = v,
                                 .o = const_cast<void*>(o),
                                 .lse = const_cast<float*>(lse),
                                 .dout = dout,
                                 .dq = dq,
                                 .dk = dk,
                                 .dv = dv};
  check_attention_shape(shape, sizes);
  check_attention_tensors(shape, tensors, true);
  check_pointer(rows.offsets, alignof(std::int32_t), "the offsets of attention's rows");
  check_pointer(workspace, 256, "the workspace of attention");
  choose_attention_kernel(shape, sizes, tensors).backward(shape, rows, tensors, workspace, stream);
}

}  // namespace qshard::optimized
