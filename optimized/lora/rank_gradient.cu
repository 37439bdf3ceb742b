#include <array>

#include "optimized/device/early_launch.h"
#include "optimized/lora/column_groups.h"
#include "optimized/lora/group_launch.h"
#include "optimized/lora/rank_gradient.cuh"
#include "optimized/lora/warpgroup/warpgroup_sums.h"

namespace qshard::optimized {

namespace {

template <typename T, bool kWide, int kTiles>
void launch(const GradientTask& task, cudaStream_t stream) {
  launch_groups(rank_gradient_kernel<T, kWide, kTiles>, task, divide_up(task.input.features, kGradientFeatures),
                kGradientFeatureWarps, GradientStage::bytes(task.block_groups), stream);
}

template <typename T>
void launch_tiles(const GradientTask& task, bool wide, int tiles, cudaStream_t stream) {
  if (!wide) return launch<T, false, 8>(task, stream);
  if (tiles == 2) return launch<T, true, 2>(task, stream);
  if (tiles == 4) return launch<T, true, 4>(task, stream);
  launch<T, true, 8>(task, stream);
}

}  // namespace

void rank_gradient(DType dtype, bool wide, bool transposed, const ScaledInput& input,
                   std::span<const RankGradient> gradients, float* partials, cudaStream_t stream, RankKernel kernel) {
  GradientSums sums{partials, 0, 1, {}, {}, static_cast<int>(gradients.size())};
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    sums.out[i] = gradients[i].sum;
    sums.first[i] = sums.slice_stride;
    sums.slice_stride += gradients[i].rank * input.features;
  }
  const auto place_of = [&](std::size_t i, bool sliced) {
    return sliced ? partials + sums.first[i] : gradients[i].sum;
  };
  std::array<warpgroup_lora::RankSum, kMostProducts> rank_sums{};
  const SumCut warpgroup_cut = warpgroup_lora::cut_sums(input.features, input.tokens);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const auto& [factor, rank, mask, sum] = gradients[i];
    rank_sums[i] = {factor,
                    rank,
                    mask,
                    place_of(i, warpgroup_cut.slices > 1),
                    transposed ? 1 : rank,
                    transposed ? input.features : 1,
                    static_cast<int>(rank)};
  }
  const auto used = std::span<const warpgroup_lora::RankSum>(rank_sums).first(gradients.size());
  if (kernel == RankKernel::fastest && warpgroup_lora::takes(warpgroup_lora::Sum::tokens, wide, used)) {
    sums.slices = warpgroup_cut.slices;
    warpgroup_lora::run(warpgroup_lora::Sum::tokens, dtype, input, used, warpgroup_cut, sums.slice_stride, input.scale,
                        sums.slices == 1, stream);
  } else {
    const ColumnGroups groups = column_groups(gradients, !wide);
    const SumCut cut = cut_gradient(input.tokens, input.features, groups.count);
    sums.slices = cut.slices;
    GradientTask task{input, {}, groups.count, groups.block_groups, sums.slice_stride, cut.slices == 1, cut, 0};
    for (int i = 0; i < groups.count; ++i) {
      const auto [gradient, first] = groups.groups[i];
      const auto& [factor, rank, mask, sum] = gradients[gradient];
      task.groups[i] = {factor,
                        mask,
                        static_cast<int>(rank),
                        first,
                        place_of(gradient, cut.slices > 1),
                        transposed ? 1 : rank,
                        transposed ? input.features : 1};
    }
    const auto launch_typed = dtype == DType::bf16 ? launch_tiles<__nv_bfloat16> : launch_tiles<__half>;
    launch_typed(task, wide, groups.tiles, stream);
  }
  if (sums.slices == 1) return;
  launch_early(add_gradient_slices_kernel, dim3(static_cast<unsigned>(divide_up(sums.slice_stride, 256))), 256, 0,
               stream, sums);
}

}  // namespace qshard::optimized
