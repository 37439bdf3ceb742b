#pragma once

#include <cmath>
#include <type_traits>

#include "optimized/attention/attention_delta.cuh"
#include "optimized/attention/attention_table.h"
#include "optimized/attention/attention_task.h"
#include "optimized/attention/key_gradient_splits.h"
#include "optimized/attention/row_tiles.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"

namespace qshard::optimized {

/// The kernels' arguments; delta and partial sums lie in the workspace in this order.
template <typename T>
AttentionTask<T> make_attention_task(const AttentionShape& shape, const TokenRows& rows,
                                     const AttentionTensors& tensors, int splits, void* workspace) {
  AttentionTask<T> task{};
  task.offsets = rows.offsets;
  task.tokens = rows.tokens;
  task.rows = rows.rows;
  task.heads = static_cast<int>(shape.heads);
  task.kv_heads = static_cast<int>(shape.kv_heads);
  task.head_dim = static_cast<int>(shape.head_dim);
  task.window = static_cast<int>(shape.window);
  task.q_stride = shape.q_stride;
  task.kv_stride = shape.kv_stride;
  task.o_stride = shape.o_stride;
  task.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  task.q = static_cast<const T*>(tensors.q);
  task.k = static_cast<const T*>(tensors.k);
  task.v = static_cast<const T*>(tensors.v);
  task.o = static_cast<T*>(tensors.o);
  task.lse = tensors.lse;
  task.dout = static_cast<const T*>(tensors.dout);
  task.dq = static_cast<T*>(tensors.dq);
  task.dk = static_cast<T*>(tensors.dk);
  task.dv = static_cast<T*>(tensors.dv);
  task.delta = static_cast<float*>(workspace);
  task.splits = splits;
  if (splits > 1) {
    const std::int64_t partials = splits * rows.tokens * shape.kv_heads * shape.head_dim;
    task.partial_k = task.delta + attention_delta_floats(shape.heads, rows.tokens);
    task.partial_v = task.partial_k + partials;
  }
  return task;
}

/// Calls work(T{}, std::integral_constant<int, kDim>{}) for the dtype and the tile that holds head_dim.
template <typename T, typename Work>
void with_tile_dim(std::int64_t head_dim, const Work& work) {
  if (head_dim <= 64) {
    work(T{}, std::integral_constant<int, 64>{});
  } else if (head_dim <= 128) {
    work(T{}, std::integral_constant<int, 128>{});
  } else {
    work(T{}, std::integral_constant<int, 256>{});
  }
}

/// Launches a kernel that takes a task, with more shared memory than 48 KiB where it needs it.
template <typename T>
void launch_attention(void (*kernel)(AttentionTask<T>), dim3 grid, int threads, int shared_bytes,
                      const AttentionTask<T>& task, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  launch_early(kernel, grid, threads, shared_bytes, stream, task);
}

/// The grid of a kernel with a thread block for every head (of `heads`) and slot of `tile` tokens.
template <typename T>
dim3 attention_grid(const AttentionTask<T>& task, int heads, int tile) {
  return {static_cast<unsigned>(heads), static_cast<unsigned>(tile_slots(task.tokens, task.rows, tile))};
}

/// Workspace of a backward pass: delta, and the partial sums of dk and dv where thread blocks share a group of heads.
inline std::size_t attention_backward_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes,
                                                      int splits) {
  const std::int64_t partials = splits > 1 ? 2 * splits * sizes.tokens * shape.kv_heads * shape.head_dim : 0;
  return sizeof(float) * (attention_delta_floats(shape.heads, sizes.tokens) + partials);
}

/// dk and dv from their partial sums, where there are any.
template <typename T>
void launch_partial_sums(const AttentionTask<T>& task, cudaStream_t stream) {
  if (task.splits == 1) return;
  constexpr int kThreads = 256;
  const std::int64_t elements = static_cast<std::int64_t>(task.tokens) * task.kv_heads * task.head_dim;
  launch_early(add_partial_gradients<T>, dim3(static_cast<unsigned>((elements + kThreads - 1) / kThreads)), kThreads, 0,
               stream, task);
}

template <typename T, int kWidth>
void launch_attention_delta(const AttentionTask<T>& task, cudaStream_t stream) {
  const std::int64_t items = static_cast<std::int64_t>(task.tokens) * task.heads;
  constexpr std::int64_t kItems = kDeltaThreads / kDeltaLanes;
  launch_early(attention_delta<T, kWidth>, dim3(static_cast<unsigned>((items + kItems - 1) / kItems)), kDeltaThreads, 0,
               stream, task);
}

}  // namespace qshard::optimized
