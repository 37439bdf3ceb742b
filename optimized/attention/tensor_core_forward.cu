#include "optimized/attention/attention_launch.cuh"
#include "optimized/attention/tensor_core_forward.cuh"

namespace qshard::optimized {

void tensor_core_attention_forward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                   void* /*workspace*/, cudaStream_t stream) {
  const auto forward = [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    using Tiling = ForwardTiling<kDim>;
    const auto task = make_attention_task<T>(shape, rows, tensors, 1, nullptr);
    launch_attention(tensor_core_forward<T, kDim>, attention_grid(task, task.heads, Tiling::kQueries), Tiling::kThreads,
                     Tiling::kSharedBytes, task, stream);
  };
  if (shape.dtype == DType::bf16) {
    with_tile_dim<__nv_bfloat16>(shape.head_dim, forward);
  } else {
    with_tile_dim<__half>(shape.head_dim, forward);
  }
}

}  // namespace qshard::optimized
