#include "optimized/attention/warpgroup/warpgroup_forward.cuh"
#include "optimized/attention/warpgroup/warpgroup_launch.cuh"

namespace qshard::optimized {

void warpgroup_attention_forward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                 void* /*workspace*/, cudaStream_t stream) {
  using namespace warpgroup_attention;  // NOLINT(google-build-using-namespace)
  const TensorMaps maps = tensor_maps(shape, rows.tokens, tensors);
  with_type(shape, [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    const auto task = make_attention_task<T>(shape, rows, tensors, 1, nullptr);
    launch(warpgroup_forward<T, kDim>, attention_grid(task, task.heads, kForwardQueries), ForwardMemory<kDim>::kThreads,
           ForwardMemory<kDim>::kBytes, task, maps, stream);
  });
}

}  // namespace qshard::optimized
