#include "optimized/attention/warpgroup/warpgroup_key_gradient.cuh"
#include "optimized/attention/warpgroup/warpgroup_launch.cuh"
#include "optimized/attention/warpgroup/warpgroup_query_gradient.cuh"

namespace qshard::optimized {

namespace {

int splits_of(const AttentionShape& shape, std::int64_t tokens, std::int64_t rows) {
  return key_gradient_splits(shape.heads, shape.kv_heads, tokens, rows, warpgroup_attention::kGradientKeys);
}

}  // namespace

std::size_t warpgroup_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes) {
  return attention_backward_workspace_bytes(shape, sizes, splits_of(shape, sizes.tokens, sizes.rows));
}

void warpgroup_attention_backward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                  void* workspace, cudaStream_t stream) {
  using namespace warpgroup_attention;  // NOLINT(google-build-using-namespace)
  const int splits = splits_of(shape, rows.tokens, rows.rows);
  const TensorMaps maps = tensor_maps(shape, rows.tokens, tensors);
  with_type(shape, [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    const auto task = make_attention_task<T>(shape, rows, tensors, splits, workspace);
    launch_attention_delta<T, 8>(task, stream);
    launch(warpgroup_key_gradient<T, kDim>, attention_grid(task, task.kv_heads * task.splits, kGradientKeys),
           KeyGradientMemory<kDim>::kThreads, KeyGradientMemory<kDim>::kBytes, task, maps, stream);
    launch_partial_sums(task, stream);
    launch(warpgroup_query_gradient<T, kDim>, attention_grid(task, task.heads, kGradientQueries),
           QueryGradientMemory<kDim>::kThreads, QueryGradientMemory<kDim>::kBytes, task, maps, stream);
  });
}

}  // namespace qshard::optimized
