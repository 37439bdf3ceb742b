#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/ptx/async_copy.cuh"
#include "optimized/ptx/matrix_instruction.cuh"
#include "optimized/ptx/shared_access.cuh"

// Tiles of 16-bit matrices in shared memory, and products of them in the registers of one warp.
namespace qshard::optimized {

/// Rows of kDim two-byte elements. Chunk c of 16 bytes of row r is stored at place c ^ (r % 8), so that the 8 rows of a
/// matrix that a warp loads lie in different banks.
template <int kDim>
struct SharedTile {
  static constexpr int kChunks = kDim / 8;
  static_assert(kChunks % 8 == 0);

  std::uint32_t address;

  [[nodiscard]] __device__ __forceinline__ std::uint32_t at(int row, int chunk) const {
    return address + static_cast<std::uint32_t>(row * (kDim * 2) + ((chunk ^ (row & 7)) << 4));
  }

  /// By kThreads threads: starts copying rows of head_dim elements, `stride` apart; rows from `present` on, and what a
  /// row has beyond head_dim, become zeros.
  template <int kRows, int kThreads, typename T>
  __device__ __forceinline__ void load(const T* from, std::int64_t stride, int present, int head_dim) const {
    constexpr int kRowStep = kThreads / kChunks;
    static_assert(kThreads % kChunks == 0 && kRows % kRowStep == 0);
    const int first_row = static_cast<int>(threadIdx.x) / kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % kChunks;
    const bool inside = chunk * 8 < head_dim;
    const T* source = from + first_row * stride + chunk * 8;
#pragma unroll
    for (int i = 0; i < kRows / kRowStep; ++i) {
      const int row = first_row + i * kRowStep;
      const bool exists = inside && row < present;
      cp_async<16>(at(row, chunk), exists ? source : from, exists);
      source += kRowStep * stride;
    }
  }
};

/// A warp's sums: kRowTiles times 16 rows and kColumns columns. Lane 4 * g + t has of row tile i and columns 8 * j and
/// up: value[i][j][0] and [1] of row g, [2] and [3] of row g + 8, columns 2 * t and 2 * t + 1.
template <int kRowTiles, int kColumns>
struct WarpSums {
  float value[kRowTiles][kColumns / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (auto& row_tile : value) {
#pragma unroll
      for (auto& column_tile : row_tile) {
#pragma unroll
        for (float& sum : column_tile) sum = 0.0F;
      }
    }
  }

  /// += a b^T: the warp's rows of `a` from a_row on, and rows 0 to kColumns - 1 of `b`.
  template <typename T, int kDim>
  __device__ __forceinline__ void add_product_of_rows(SharedTile<kDim> a, int a_row, SharedTile<kDim> b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int b_row = lane % 8 + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      std::uint32_t left[kRowTiles][4];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) ldmatrix(left[i], a.at(a_row + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int j = 0; j < kColumns / 16; ++j) {
        std::uint32_t right[4];
        ldmatrix(right, b.at(16 * j + b_row, 2 * k + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          mma_m16n8k16<T>(value[i][2 * j], left[i][0], left[i][1], left[i][2], left[i][3], right[0], right[1]);
          mma_m16n8k16<T>(value[i][2 * j + 1], left[i][0], left[i][1], left[i][2], left[i][3], right[2], right[3]);
        }
      }
    }
  }

  /// += a b: `a` [warp's rows, kInner] rounded to T, and rows 0 to kInner - 1 of `b`. The layout of sums is the one
  /// that the matrix instruction wants of its first operand, two column tiles for one step of the inner dimension.
  template <typename T, int kInner>
  __device__ __forceinline__ void add_product(const WarpSums<kRowTiles, kInner>& a, SharedTile<kColumns> b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < kInner / 16; ++k) {
      std::uint32_t left[kRowTiles][4];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const float(&pair)[4] = a.value[i][2 * k + part / 2];
          left[i][part] = round_pair<T>(pair[part % 2 * 2], pair[part % 2 * 2 + 1]);
        }
      }
#pragma unroll
      for (int j = 0; j < kColumns / 16; ++j) {
        std::uint32_t right[4];
        ldmatrix_transposed(right, b.at(16 * k + lane % 16, 2 * j + lane / 16));
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          mma_m16n8k16<T>(value[i][2 * j], left[i][0], left[i][1], left[i][2], left[i][3], right[0], right[1]);
          mma_m16n8k16<T>(value[i][2 * j + 1], left[i][0], left[i][1], left[i][2], left[i][3], right[2], right[3]);
        }
      }
    }
  }

  /// Writes factor[i][half] * sums, rounded to T, to rows of head_dim elements, `stride` apart, the first `present` of
  /// them; through the rows of `staging` from staging_row on, which no other warp uses.
  template <typename T>
  __device__ __forceinline__ void store(const float (&factor)[kRowTiles][2], SharedTile<kColumns> staging,
                                        int staging_row, T* to, std::int64_t stride, int present, int head_dim) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t pair =
              round_pair<T>(value[i][j][2 * half] * factor[i][half], value[i][j][2 * half + 1] * factor[i][half]);
          store_shared_u32(staging.at(staging_row + 16 * i + 8 * half + lane / 4, j) + lane % 4 * 4, pair);
        }
      }
    }
    __syncwarp();
    constexpr int kChunks = SharedTile<kColumns>::kChunks;
    for (int piece = lane; piece < 16 * kRowTiles * kChunks; piece += 32) {
      const int row = piece / kChunks;
      const int chunk = piece % kChunks;
      if (row >= present || chunk * 8 >= head_dim) continue;
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) =
          load_shared_u32x4(staging.at(staging_row + row, chunk));
    }
  }
};

}  // namespace qshard::optimized
