#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// The many features of an input, masked as it is read. Its products are multiplied by a scale: once for each sum,
/// which is exact where the scale is a power of two, instead of each element.
struct ScaledInput {
  const void* values = nullptr;  // [tokens, features]
  std::int64_t stride = 0;       // elements from token to token
  std::int64_t tokens = 0;
  std::int64_t features = 0;
  float scale = 1;
  std::int64_t mask_stride = 0;  // bytes from token to token
};

/// Which kernel: wgmma's where it takes the call, or mma.sync's, which runs on every GPU and is asked for by tests.
enum class RankKernel { fastest, every_gpu };

/// One weight of few columns that an input is multiplied by.
struct RankProduct {
  const void* weight = nullptr;
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;
  void* out = nullptr;  // [tokens, lora_rank_stride(rank)]
};

/// out = round(scale * mask(input) weight) for up to kMostSharedInputs products with f16 or bf16 tensors:
/// weight is [features, rank], or its transpose where `transposed`. `wide`: every run of 8 elements is aligned to 16
/// bytes. Partial sums go to `partials`, [slices of cut_product(), tokens, sum of the strides of out].
void rank_product(DType dtype, bool wide, bool transposed, const ScaledInput& input,
                  std::span<const RankProduct> products, float* partials, cudaStream_t stream,
                  RankKernel kernel = RankKernel::fastest);

}  // namespace qshard::optimized
