#pragma once

#include <cstdint>

#include "optimized/ptx/warpgroup_instruction.cuh"

// wgmma with a second operand that is stored by its inner dimension, as the right factor of an ordinary product of
// matrices in row order is.
namespace qshard::optimized {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// Matrix b [16, columns] as boxes of 64 columns in the 128-byte swizzle, `box_bytes` from one box to the next: a line
/// of 128 bytes is one of the inner dimension. `address`, aligned to 1024, is that of the first of the 16 lines.
__device__ __forceinline__ std::uint64_t transposed_matrix_descriptor(std::uint32_t address, int box_bytes) {
  return address_field(address) | static_cast<std::uint64_t>(box_bytes >> 4) << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

/// d = a b, or d += a b where `add`: a [64, 16] in the registers of a warpgroup, each warp its 16 rows; b [16, columns]
/// as transposed_matrix_descriptor() describes it. Asynchronous; d as in wgmma().
template <typename T, int kSums>
__device__ __forceinline__ void wgmma_transposed(float (&d)[kSums], const std::uint32_t (&a)[4], std::uint64_t b,
                                                 bool add) {
  wgmma<T, true>(d, a, b, add);
}

#endif

}  // namespace qshard::optimized
