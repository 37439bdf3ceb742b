#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/lora/rank_update.cuh"

namespace qshard::optimized {

namespace {

template <typename T, bool kWide, bool kTransposed>
void launch(const UpdateTask& task, cudaStream_t stream) {
  int bytes = 0;
  for (int i = 0; i < task.count; ++i) bytes += update_weight_bytes(task.updates[i].rank);
  const auto kernel = rank_update_kernel<T, kWide, kTransposed>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const dim3 grid(static_cast<unsigned>(divide_up(task.output.features, kUpdateFeatures)),
                  static_cast<unsigned>(divide_up(task.output.tokens, kUpdateTokens)));
  launch_early(kernel, grid, kUpdateThreads, bytes, stream, task);
}

template <typename T>
void launch_kind(const UpdateTask& task, bool wide, bool transposed, cudaStream_t stream) {
  if (transposed) return wide ? launch<T, true, true>(task, stream) : launch<T, false, true>(task, stream);
  wide ? launch<T, true, false>(task, stream) : launch<T, false, false>(task, stream);
}

}  // namespace

void rank_update(DType dtype, bool wide, bool transposed, const UpdatedOutput& output,
                 std::span<const RankUpdate> updates, cudaStream_t stream) {
  std::size_t next = 0;
  while (next < updates.size()) {
    UpdateTask task{output, {}, 0};
    int bytes = 0;
    while (next < updates.size() && bytes + update_weight_bytes(updates[next].rank) <= kUpdateSharedBytes) {
      bytes += update_weight_bytes(updates[next].rank);
      task.updates[task.count++] = updates[next++];
    }
    dtype == DType::bf16 ? launch_kind<__nv_bfloat16>(task, wide, transposed, stream)
                         : launch_kind<__half>(task, wide, transposed, stream);
  }
}

}  // namespace qshard::optimized
