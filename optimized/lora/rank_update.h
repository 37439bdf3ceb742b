#pragma once

#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// The many features of an output, updated in place.
struct UpdatedOutput {
  void* values = nullptr;   // [tokens, features]
  std::int64_t stride = 0;  // elements from token to token
  std::int64_t tokens = 0;
  std::int64_t features = 0;
  float scale = 1;               // of the products
  std::int64_t mask_stride = 0;  // bytes from token to token
};

/// One product of few inner columns.
struct RankUpdate {
  const void* factor = nullptr;  // [tokens, lora_rank_stride(rank)]
  const void* weight = nullptr;
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;
};

/// Shared memory that the weights of one launch may take: what every supported GPU has.
inline constexpr int kUpdateSharedBytes = 96 << 10;

/// output = round(output + the sum of mask(round(scale * round(factor weight)))) over the updates in their order, with
/// f16 or bf16 tensors: weight is [rank, features], or its transpose where `transposed`. `wide` as for rank_product().
/// One launch for as many updates as have room for their weights.
void rank_update(DType dtype, bool wide, bool transposed, const UpdatedOutput& output,
                 std::span<const RankUpdate> updates, cudaStream_t stream);

}  // namespace qshard::optimized
