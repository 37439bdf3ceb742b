#include "optimized/attention/attention_launch.cuh"
#include "optimized/attention/plain_attention.cuh"

namespace qshard::optimized {

namespace {

template <typename Work>
void with_type_and_dim(const AttentionShape& shape, const Work& work) {
  if (shape.dtype == DType::f32) {
    with_tile_dim<float>(shape.head_dim, work);
  } else if (shape.dtype == DType::bf16) {
    with_tile_dim<__nv_bfloat16>(shape.head_dim, work);
  } else {
    with_tile_dim<__half>(shape.head_dim, work);
  }
}

}  // namespace

std::size_t plain_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes) {
  return sizeof(float) * attention_delta_floats(shape.heads, sizes.tokens);
}

void plain_attention_forward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                             void* /*workspace*/, cudaStream_t stream) {
  with_type_and_dim(shape, [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    using Tiling = PlainTiling<kDim>;
    const auto task = make_attention_task<T>(shape, rows, tensors, 1, nullptr);
    launch_attention(plain_forward<T, kDim>, attention_grid(task, task.heads, Tiling::kRows), Tiling::kThreads,
                     Tiling::kForwardBytes, task, stream);
  });
}

void plain_attention_backward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                              void* workspace, cudaStream_t stream) {
  with_type_and_dim(shape, [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    using Tiling = PlainTiling<kDim>;
    const auto task = make_attention_task<T>(shape, rows, tensors, 1, workspace);
    launch_attention_delta<T, 1>(task, stream);
    launch_attention(plain_key_gradient<T, kDim>, attention_grid(task, task.kv_heads, Tiling::kRows), Tiling::kThreads,
                     Tiling::kKeyGradientBytes, task, stream);
    launch_attention(plain_query_gradient<T, kDim>, attention_grid(task, task.heads, Tiling::kRows), Tiling::kThreads,
                     Tiling::kQueryGradientBytes, task, stream);
  });
}

}  // namespace qshard::optimized
