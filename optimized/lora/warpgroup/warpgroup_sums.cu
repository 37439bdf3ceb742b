#include <algorithm>

#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/lora.h"
#include "optimized/lora/warpgroup/warpgroup_sums.cuh"

namespace qshard::optimized::warpgroup_lora {

namespace {

/// Rows of so many bytes, in boxes.
CUtensorMap map_of(const void* data, std::int64_t bytes, std::int64_t rows, std::int64_t stride, int box_bytes,
                   int box_rows) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(data), {bytes, rows}, {stride}, {box_bytes, box_rows},
                         box_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE);
}

CUtensorMap right_map(Sum sum, const ScaledInput& input, const RankSum& projection) {
  if (sum == Sum::weight_rows) {
    return map_of(projection.right, 2 * input.features, projection.rank, 2 * input.features, 128, kRankColumns);
  }
  const std::int64_t stride = sum == Sum::tokens ? lora_rank_stride(projection.rank) : projection.rank;
  return map_of(projection.right, 2 * stride, sum == Sum::tokens ? input.tokens : input.features, 2 * stride, 128,
                kDepth);
}

template <typename T, Sum kSum, int kProducts, bool kMasked>
void launch(const SumTask& task, cudaStream_t stream) {
  constexpr int kBytes = Memory<kProducts, kMasked>::kBytes;
  const auto kernel = warpgroup_sums_kernel<T, kSum, kProducts, kMasked>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(divide_up(task.rows, kTileRows)), static_cast<unsigned>(task.cut.slices));
  launch_early(kernel, grid, kThreads, kBytes, stream, task);
}

template <typename T, Sum kSum>
void launch_projections(const SumTask& task, std::size_t count, bool masked, cudaStream_t stream) {
  if (count == 1) return masked ? launch<T, kSum, 1, true>(task, stream) : launch<T, kSum, 1, false>(task, stream);
  if (count == 2) return masked ? launch<T, kSum, 2, true>(task, stream) : launch<T, kSum, 2, false>(task, stream);
  return masked ? launch<T, kSum, 3, true>(task, stream) : launch<T, kSum, 3, false>(task, stream);
}

template <typename T>
void launch_sum(Sum sum, const SumTask& task, std::size_t count, bool masked, cudaStream_t stream) {
  switch (sum) {
    case Sum::weight_rows:
      return launch_projections<T, Sum::weight_rows>(task, count, masked, stream);
    case Sum::weight_columns:
      return launch<T, Sum::weight_columns, 1, false>(task, stream);
    case Sum::tokens:
      return launch_projections<T, Sum::tokens>(task, count, masked, stream);
  }
}

}  // namespace

bool takes(Sum sum, bool wide, std::span<const RankSum> projections) {
  const auto masked = std::ranges::count_if(projections, [](const RankSum& of) { return of.mask != nullptr; });
  const bool alike = masked == 0 || masked == std::ssize(projections);
  const bool simple = projections.size() == 1 && masked == 0;
  return wide && alike && (sum != Sum::weight_columns || simple) &&
         std::ranges::all_of(projections, [](const RankSum& of) { return of.rank <= kRankColumns; }) &&
         device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
}

void run(Sum sum, DType dtype, const ScaledInput& input, std::span<const RankSum> projections, const SumCut& cut,
         std::int64_t slice_stride, float scale, bool add, cudaStream_t stream) {
  SumTask task{};
  task.input = map_of(input.values, 2 * input.features, input.tokens, 2 * input.stride, 128, 128);
  for (std::size_t i = 0; i < projections.size(); ++i) {
    task.projections[i] = projections[i];
    task.right[i] = right_map(sum, input, projections[i]);
    if (projections[i].mask == nullptr) continue;
    task.mask[i] = map_of(projections[i].mask, input.mask_stride, input.tokens, input.mask_stride, 16, 128);
  }
  const bool along_tokens = sum == Sum::tokens;
  task.rows = static_cast<int>(along_tokens ? input.features : input.tokens);
  task.steps = static_cast<int>(divide_up(along_tokens ? input.tokens : input.features, kDepth));
  task.cut = cut;
  task.slice_stride = slice_stride;
  task.scale = scale;
  task.add = add;
  const auto launch_typed = dtype == DType::bf16 ? launch_sum<__nv_bfloat16> : launch_sum<__half>;
  launch_typed(sum, task, projections.size(), projections[0].mask != nullptr, stream);
}

}  // namespace qshard::optimized::warpgroup_lora
