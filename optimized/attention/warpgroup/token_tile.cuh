#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/device_math.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/warpgroup_transposed.cuh"

namespace qshard::optimized::warpgroup_attention {

/// Tokens of a tile in shared memory; a warpgroup multiplies with 64 rows at once.
inline constexpr int kTileTokens = 64;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// 64 tokens of one head, kDim two-byte elements each, in shared memory: boxes of 64 tokens by 64 elements as copies
/// with the 128-byte swizzle lay them out. Elements from head_dim on are zeros.
template <int kDim>
struct TokenTile {
  static constexpr int kBoxBytes = kTileTokens * 128;
  static constexpr int kBytes = kDim / 64 * kBoxBytes;

  std::uint32_t address;  // a multiple of 1024

  /// Operand of instruction `i` of a product along the elements: 16 of them of all tokens.
  [[nodiscard]] __device__ __forceinline__ std::uint64_t along_elements(int i) const {
    return swizzled_matrix_descriptor(address) + (i / 4 * kBoxBytes + i % 4 * 32) / 16;
  }

  /// Second operand of instruction `i` of a product along the tokens: 16 of them, all elements.
  [[nodiscard]] __device__ __forceinline__ std::uint64_t along_tokens(int i) const {
    return transposed_matrix_descriptor(address, kBoxBytes) + i * 16 * 128 / 16;
  }

  /// Where chunk `chunk` of 16 bytes of a token is.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t at(int token, int chunk) const {
    return address + chunk / 8 * kBoxBytes + token * 128 + ((chunk % 8 ^ token % 8) << 4);
  }

  /// One lane: starts copying 64 tokens from `token` on; `barrier` counts kBytes.
  __device__ __forceinline__ void copy(const CUtensorMap& map, int head, int token, std::uint32_t barrier) const {
#pragma unroll
    for (int box = 0; box < kDim / 64; ++box) tma_load(address + box * kBoxBytes, map, 128 * box, head, token, barrier);
  }

  /// A warp: copies the first `present` tokens, `stride` elements apart; the others become zeros.
  template <typename T>
  __device__ __forceinline__ void copy_present(const T* from, std::int64_t stride, int head_dim, int present) const {
    constexpr int kChunks = kDim / 8;
#pragma unroll 1  // rare, and the producer has few registers
    for (int piece = static_cast<int>(threadIdx.x) % 32; piece < kTileTokens * kChunks; piece += 32) {
      const int token = piece / kChunks;
      const int chunk = piece % kChunks;
      uint4 value{};
      if (token < present && chunk * 8 < head_dim) {
        value = *reinterpret_cast<const uint4*>(from + token * stride + chunk * 8);
      }
      store_shared_u32x4(at(token, chunk), value);
    }
    fence_proxy_async_shared();
  }

  /// A warpgroup that alone uses the tile: writes factor * sums, rounded to T, to the first `present` of 64 rows,
  /// `stride` elements apart. sums: of wgmma, 64 rows by kDim columns. Each warp writes its own 16 rows.
  template <typename T>
  __device__ __forceinline__ void store(const float (&sums)[kDim / 2], float factor, T* to, std::int64_t stride,
                                        int head_dim, int present) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int first = static_cast<int>(threadIdx.x) % 128 / 32 * 16;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        store_shared_u32(at(first + lane / 4 + 8 * half, i) + lane % 4 * 4,
                         round_pair<T>(sums[4 * i + 2 * half] * factor, sums[4 * i + 2 * half + 1] * factor));
      }
    }
    __syncwarp();
    constexpr int kChunks = kDim / 8;
#pragma unroll 4
    for (int piece = lane; piece < 16 * kChunks; piece += 32) {
      const int row = first + piece / kChunks;
      const int chunk = piece % kChunks;
      if (row >= present || chunk * 8 >= head_dim) continue;
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) = load_shared_u32x4(at(row, chunk));
    }
  }
};

/// Of sums of wgmma, 64 rows by 64 columns, rounded to T: the first operand of a product along those columns.
template <typename T>
__device__ __forceinline__ void round_operand(const float (&sums)[32], std::uint32_t (&operand)[4][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      operand[i][part] = round_pair<T>(sums[8 * i + 2 * part], sums[8 * i + 2 * part + 1]);
    }
  }
}

/// sums = a b^T, 64 rows of `a` by 64 rows of `b`, as a group of its own.
template <typename T, int kDim>
__device__ __forceinline__ void multiply_rows(float (&sums)[32], TokenTile<kDim> a, TokenTile<kDim> b) {
  wgmma_fence(sums);
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    wgmma_shared<T, false>(sums, a.along_elements(i), b.along_elements(i), i > 0);
  }
  wgmma_commit();
}

/// sums += a b, a [64, 64] in registers, b 64 tokens by kDim elements, as a group of its own; sums = a b where not
/// `add`.
template <typename T, int kDim>
__device__ __forceinline__ void add_product(float (&sums)[kDim / 2], std::uint32_t (&a)[4][4], TokenTile<kDim> b,
                                            bool add) {
  wgmma_fence(a);
#pragma unroll
  for (int i = 0; i < 4; ++i) wgmma_transposed<T>(sums, a[i], b.along_tokens(i), add || i > 0);
  wgmma_commit();
}

#endif

}  // namespace qshard::optimized::warpgroup_attention
