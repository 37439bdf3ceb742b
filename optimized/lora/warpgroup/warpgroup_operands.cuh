#pragma once

#include <cstdint>

#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/sign_bytes.cuh"

// First operands of wgmma out of a box of the input in shared memory, lines of 64 features in the copies' swizzle: four
// operands for 64 of the inner dimension. A lane 4 g + t has of an operand [64 rows, 16] its warp's rows g and g + 8,
// and columns 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
namespace qshard::optimized::warpgroup_lora {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

using Operands = std::uint32_t[4][4];

/// Rows are tokens, from `row` on; the box holds the 64 features.
__device__ __forceinline__ void load_tokens(Operands& operands, std::uint32_t box, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int token = row + lane % 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    ldmatrix(operands[i], box + token * 128 + ((2 * i + lane / 16 ^ token % 8) << 4));
  }
}

/// Sets to 0 what the mask drops. mask: of the 64 features, of the warp's first token.
__device__ __forceinline__ void keep_tokens(Operands& operands, std::uint32_t mask) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const uint2 words = load_shared_u32x2(mask + (lane / 4 + 8 * row) * 16);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Bit 7 of byte b: of feature 8 b + 2 t, and of the one behind it.
      const std::uint32_t word = half == 0 ? words.x : words.y;
      const std::uint32_t even = word << (7 - lane % 4 * 2);
      const std::uint32_t odd = word << (6 - lane % 4 * 2);
      operands[2 * half][row] &= spread_signs(even, odd, 0xCC88U);
      operands[2 * half][2 + row] &= spread_signs(even, odd, 0xDD99U);
      operands[2 * half + 1][row] &= spread_signs(even, odd, 0xEEAAU);
      operands[2 * half + 1][2 + row] &= spread_signs(even, odd, 0xFFBBU);
    }
  }
}

/// Rows are features, from `feature` of the box on; columns are 64 tokens from `token` on.
__device__ __forceinline__ void load_features(Operands& operands, std::uint32_t box, int feature, int token) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int of = token + 16 * i + lane / 16 * 8 + lane % 8;
    ldmatrix_transposed(operands[i], box + of * 128 + ((feature / 8 + lane / 8 % 2 ^ of % 8) << 4));
  }
}

/// The same as keep_tokens(). mask: of 32 features, the warp's 16 are the first or the second half of them, of token 0.
__device__ __forceinline__ void keep_features(Operands& operands, std::uint32_t mask, bool second, int token) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::uint32_t low = second ? 0xEEAAU : 0xCC88U;  // features g, and below g + 8
  const std::uint32_t high = low + 0x1111U;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    std::uint32_t signs[4];  // bit 7 of byte b: feature 8 b + g
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int of = token + 16 * i + j / 2 * 8 + lane % 4 * 2 + j % 2;
      signs[j] = load_shared_u32(mask + of * 16) << (7 - lane / 4);
    }
    operands[i][0] &= spread_signs(signs[0], signs[1], low);
    operands[i][1] &= spread_signs(signs[0], signs[1], high);
    operands[i][2] &= spread_signs(signs[2], signs[3], low);
    operands[i][3] &= spread_signs(signs[2], signs[3], high);
  }
}

#endif

}  // namespace qshard::optimized::warpgroup_lora
