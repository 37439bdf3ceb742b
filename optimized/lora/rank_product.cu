#include <array>

#include "optimized/device/early_launch.h"
#include "optimized/lora.h"
#include "optimized/lora/column_groups.h"
#include "optimized/lora/group_launch.h"
#include "optimized/lora/rank_product.cuh"
#include "optimized/lora/warpgroup/warpgroup_sums.h"

namespace qshard::optimized {

namespace {

template <typename T, bool kWide, bool kTransposed, int kTiles>
void launch(const ProductTask& task, cudaStream_t stream) {
  launch_groups(rank_product_kernel<T, kWide, kTransposed, kTiles>, task, divide_up(task.input.tokens, kProductTokens),
                kProductTokenWarps, ProductStage<kTransposed, kTiles>::bytes(task.block_groups), stream);
}

template <typename T, bool kTransposed>
void launch_tiles(const ProductTask& task, bool wide, int tiles, cudaStream_t stream) {
  if (!wide) return launch<T, false, kTransposed, 8>(task, stream);
  if (tiles == 2) return launch<T, true, kTransposed, 2>(task, stream);
  if (tiles == 4) return launch<T, true, kTransposed, 4>(task, stream);
  launch<T, true, kTransposed, 8>(task, stream);
}

template <typename T>
void multiply(const ProductTask& task, bool wide, bool transposed, int tiles, cudaStream_t stream) {
  if (transposed) {
    launch_tiles<T, true>(task, wide, tiles, stream);
  } else {
    launch_tiles<T, false>(task, wide, tiles, stream);
  }
}

template <typename T>
void add_slices(const ProductSums& sums, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(divide_up(sums.tokens * (sums.columns / kSumColumns), kSumThreads));
  launch_early(add_product_slices_kernel<T>, dim3(blocks), kSumThreads, 0, stream, sums);
}

}  // namespace

void rank_product(DType dtype, bool wide, bool transposed, const ScaledInput& input,
                  std::span<const RankProduct> products, float* partials, cudaStream_t stream, RankKernel kernel) {
  ProductSums sums{partials, input.tokens, 0, 0, {}, static_cast<int>(products.size()), input.scale};
  for (std::size_t i = 0; i < products.size(); ++i) {
    const auto stride = static_cast<int>(lora_rank_stride(products[i].rank));
    sums.products[i] = {products[i].out, sums.columns, stride};
    sums.columns += stride;
  }
  std::array<warpgroup_lora::RankSum, kMostProducts> rank_sums{};
  for (std::size_t i = 0; i < products.size(); ++i) {
    const auto& [weight, rank, mask, out] = products[i];
    rank_sums[i] = {weight, rank, mask, partials + sums.products[i].first, sums.columns, 1, sums.products[i].stride};
  }
  const auto used = std::span<const warpgroup_lora::RankSum>(rank_sums).first(products.size());
  const auto sum = transposed ? warpgroup_lora::Sum::weight_rows : warpgroup_lora::Sum::weight_columns;
  if (kernel == RankKernel::fastest && warpgroup_lora::takes(sum, wide, used)) {
    const SumCut cut = warpgroup_lora::cut_sums(input.tokens, input.features);
    sums.slices = cut.slices;
    warpgroup_lora::run(sum, dtype, input, used, cut, input.tokens * sums.columns, 1, false, stream);
  } else {
    const ColumnGroups groups = column_groups(products, !wide);
    ProductTask task{input,
                     {},
                     groups.count,
                     groups.block_groups,
                     partials,
                     sums.columns,
                     cut_product(input.tokens, input.features, groups.count),
                     0};
    for (int i = 0; i < groups.count; ++i) {
      const auto [product, first] = groups.groups[i];
      task.groups[i] = {products[product].weight, products[product].mask, static_cast<int>(products[product].rank),
                        first, sums.products[product].first + first};
    }
    sums.slices = task.cut.slices;
    const auto multiply_typed = dtype == DType::bf16 ? multiply<__nv_bfloat16> : multiply<__half>;
    multiply_typed(task, wide, transposed, groups.tiles, stream);
  }
  const auto add_typed = dtype == DType::bf16 ? add_slices<__nv_bfloat16> : add_slices<__half>;
  add_typed(sums, stream);
}

}  // namespace qshard::optimized
