#include <algorithm>

#include "optimized/device/cuda_check.h"
#include "optimized/device/tensor_map.h"
#include "optimized/lora.h"
#include "optimized/lora/warpgroup/warpgroup_product.cuh"

namespace qshard::optimized::warpgroup_lora {

namespace {

CUtensorMap map_of(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t stride, int box_columns,
                   int box_rows, CUtensorMapSwizzle swizzle) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(data), {columns, rows}, {stride}, {box_columns, box_rows},
                         swizzle);
}

template <typename T, int kProducts, bool kMasked, bool kTransposed>
void launch(const ProductTask& task, cudaStream_t stream) {
  constexpr int kBytes = ProductMemory<kProducts, kMasked>::kBytes;
  const auto kernel = warpgroup_product_kernel<T, kProducts, kMasked, kTransposed>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(divide_up(task.tokens, kProductTokens)),
                  static_cast<unsigned>(task.cut.slices));
  kernel<<<grid, kThreads, kBytes, stream>>>(task);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

template <typename T>
void launch_products(const ProductTask& task, std::size_t products, bool masked, bool transposed, cudaStream_t stream) {
  if (!transposed) return launch<T, 1, false, false>(task, stream);
  if (products == 1) return masked ? launch<T, 1, true, true>(task, stream) : launch<T, 1, false, true>(task, stream);
  if (products == 2) return masked ? launch<T, 2, true, true>(task, stream) : launch<T, 2, false, true>(task, stream);
  return masked ? launch<T, 3, true, true>(task, stream) : launch<T, 3, false, true>(task, stream);
}

}  // namespace

bool takes(bool wide, bool transposed, std::span<const RankProduct> products) {
  if (!wide || (!transposed && products.size() > 1)) return false;
  const auto is_masked = [](const RankProduct& product) { return product.mask != nullptr; };
  const auto masked = std::ranges::count_if(products, is_masked);
  if (masked != 0 && (!transposed || masked != std::ssize(products))) return false;
  if (std::ranges::any_of(products, [](const RankProduct& product) { return product.rank > kRankColumns; }))
    return false;
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
}

void multiply(DType dtype, bool transposed, const ScaledInput& input, std::span<const RankProduct> products,
              std::span<const int> first_columns, int columns, const SumCut& cut, float* partials,
              cudaStream_t stream) {
  ProductTask task{};
  task.input = map_of(input.values, 2 * input.features, input.tokens, 2 * input.stride, 128, kProductTokens,
                      CU_TENSOR_MAP_SWIZZLE_128B);
  for (std::size_t i = 0; i < products.size(); ++i) {
    const auto& [weight, rank, mask, out] = products[i];
    task.products[i].weight =
        transposed ? map_of(weight, 2 * input.features, rank, 2 * input.features, 128, kRankColumns,
                            CU_TENSOR_MAP_SWIZZLE_128B)
                   : map_of(weight, 2 * rank, input.features, 2 * rank, 128, kProductDepth, CU_TENSOR_MAP_SWIZZLE_128B);
    if (mask != nullptr) {
      task.products[i].mask = map_of(mask, input.mask_stride, input.tokens, input.mask_stride, kProductDepth / 8,
                                     kProductTokens, CU_TENSOR_MAP_SWIZZLE_NONE);
    }
    task.first_columns[i] = first_columns[i];
    task.strides[i] = static_cast<int>(lora_rank_stride(rank));
  }
  task.partials = partials;
  task.columns = columns;
  task.tokens = static_cast<int>(input.tokens);
  task.steps = static_cast<int>(divide_up(input.features, kProductDepth));
  task.cut = cut;
  const bool masked = products[0].mask != nullptr;
  if (dtype == DType::bf16) {
    launch_products<__nv_bfloat16>(task, products.size(), masked, transposed, stream);
  } else {
    launch_products<__half>(task, products.size(), masked, transposed, stream);
  }
}

}  // namespace qshard::optimized::warpgroup_lora
