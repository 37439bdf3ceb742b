#pragma once

#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/ptx/matrix_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// This lane's part of the rows of x for a warp's chunk, as second operands of the matrix instructions. Their eight
/// columns are kRows rows of x times 8 / kRows groups: column (group % kGroups) * kRows + row holds the row's elements
/// of that group and zeros for the others, so that each column's sum gets its own block's scale.
template <typename T, int kRows>
class InputChunk {
 public:
  static constexpr int kGroups = 8 / kRows;  // of 64 elements that one sum keeps apart
  static constexpr int kSums = kChunkGroups / kGroups;

  __device__ __forceinline__ InputChunk(const T* x, std::int64_t stride, int rows)
      : group_(threadIdx.x % 32 / 4 / kRows) {
    const int row = static_cast<int>(threadIdx.x) % 32 / 4 % kRows;
    held_ = row < rows;
    x_ = x + (held_ ? row * stride : 0) + group_ * kGroupElements + threadIdx.x % 4 * 16;
  }

  /// Requests what use() takes later.
  __device__ __forceinline__ void load(int chunk, bool inside) {
#pragma unroll
    for (int sum = 0; sum < kSums; ++sum) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        loaded_[sum][i] = uint4{};
        if (!held_ || !inside) continue;
        const T* source = x_ + static_cast<std::int64_t>(chunk) * kChunk + sum * kGroups * kGroupElements;
        loaded_[sum][i] = reinterpret_cast<const uint4*>(source)[i];
      }
    }
  }

  __device__ __forceinline__ void use() {
#pragma unroll
    for (int group = 0; group < kChunkGroups; ++group) {
      const bool own = group % kGroups == group_;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint4 quad = loaded_[group / kGroups][i];
        words_[group][4 * i] = own ? quad.x : 0;
        words_[group][4 * i + 1] = own ? quad.y : 0;
        words_[group][4 * i + 2] = own ? quad.z : 0;
        words_[group][4 * i + 3] = own ? quad.w : 0;
      }
    }
  }

  /// Words `i` of the lane's sixteen elements of a group.
  __device__ __forceinline__ std::uint32_t word(int group, int i) const {
    return words_[group][i];
  }

 private:
  int group_;
  bool held_;
  const T* x_;
  uint4 loaded_[kSums][2];
  std::uint32_t words_[kChunkGroups][8];
};

/// A warp's chunk of 16 weight rows times the rows of x. Lane 4 * g + t holds a quarter of every group of 64 elements
/// of rows swizzled_row(g) and 8 more; sums[s][i] is of row i / 2 * 8 + swizzled_row(g) and column 2 * t + i % 2.
template <typename T, int kRows>
__device__ __forceinline__ void multiply_chunk(float (&sums)[InputChunk<T, kRows>::kSums][4],
                                               const unsigned char* low_codes, const unsigned char* high_codes,
                                               const PairTable& table, const InputChunk<T, kRows>& input) {
  using Input = InputChunk<T, kRows>;
  static_assert(Input::kSums <= 2);
  const int row = swizzled_row(threadIdx.x % 32 / 4);
  const int quarter = static_cast<int>(threadIdx.x) % 4;
  float chains[2][4] = {};  // of matrix instructions that need not wait for each other
#pragma unroll
  for (int group = 0; group < kChunkGroups; ++group) {
    // Pieces of 16 bytes lie where the copy's 128-byte swizzle puts them.
    const int place = row * kChunkBytes + ((2 * group + quarter / 2) ^ row) * 16 + quarter % 2 * 8;
    const uint2 low = *reinterpret_cast<const uint2*>(low_codes + place);
    const uint2 high = *reinterpret_cast<const uint2*>(high_codes + place);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const std::uint32_t low_word = s < 2 ? low.x : low.y;
      const std::uint32_t high_word = s < 2 ? high.x : high.y;
      const int byte = 2 * s % 4;
      mma_m16n8k16<T>(chains[Input::kSums == 2 ? group / Input::kGroups : s % 2], table(low_word, byte),
                      table(high_word, byte), table(low_word, byte + 1), table(high_word, byte + 1),
                      input.word(group, 2 * s), input.word(group, 2 * s + 1));
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (Input::kSums == 2) {
      sums[0][i] = chains[0][i];
      sums[1][i] = chains[1][i];
    } else {
      sums[0][i] = chains[0][i] + chains[1][i];
    }
  }
}

}  // namespace qshard::optimized::few_rows

#endif
