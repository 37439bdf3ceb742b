#include "optimized/attention/attention_launch.cuh"
#include "optimized/attention/tensor_core_backward.cuh"

namespace qshard::optimized {

namespace {

int key_tile(std::int64_t head_dim) {
  return head_dim <= 64    ? KeyGradientTiling<64>::kKeys
         : head_dim <= 128 ? KeyGradientTiling<128>::kKeys
                           : KeyGradientTiling<256>::kKeys;
}

int splits_of(const AttentionShape& shape, std::int64_t tokens, std::int64_t rows) {
  return key_gradient_splits(shape.heads, shape.kv_heads, tokens, rows, key_tile(shape.head_dim));
}

template <typename T, int kDim>
void launch_key_gradient(const AttentionTask<T>& task, cudaStream_t stream) {
  using Tiling = KeyGradientTiling<kDim>;
  const auto launch = [&](void (*kernel)(AttentionTask<T>)) {
    launch_attention(kernel, attention_grid(task, task.kv_heads * task.splits, Tiling::kKeys), Tiling::kThreads,
                     Tiling::kSharedBytes, task, stream);
  };
  if constexpr (kDim <= 128) {
    launch(tensor_core_key_gradient<T, kDim, true, true>);
  } else {
    launch(tensor_core_key_gradient<T, kDim, true, false>);
    launch(tensor_core_key_gradient<T, kDim, false, true>);
  }
  launch_partial_sums(task, stream);
}

}  // namespace

std::size_t tensor_core_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes) {
  return attention_backward_workspace_bytes(shape, sizes, splits_of(shape, sizes.tokens, sizes.rows));
}

void tensor_core_attention_backward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                    void* workspace, cudaStream_t stream) {
  const auto backward = [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    using Tiling = QueryGradientTiling<kDim>;
    const int splits = splits_of(shape, rows.tokens, rows.rows);
    const auto task = make_attention_task<T>(shape, rows, tensors, splits, workspace);
    launch_attention_delta<T, 8>(task, stream);
    launch_key_gradient<T, kDim>(task, stream);
    launch_attention(tensor_core_query_gradient<T, kDim>, attention_grid(task, task.heads, Tiling::kQueries),
                     Tiling::kThreads, Tiling::kSharedBytes, task, stream);
  };
  if (shape.dtype == DType::bf16) {
    with_tile_dim<__nv_bfloat16>(shape.head_dim, backward);
  } else {
    with_tile_dim<__half>(shape.head_dim, backward);
  }
}

}  // namespace qshard::optimized
