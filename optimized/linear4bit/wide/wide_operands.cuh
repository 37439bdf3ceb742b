#pragma once

#include <cstdint>

#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/matrix_load.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// The first operands of a warpgroup's matrix instructions, its 64 features of the dequantized weight, in registers. An
/// instruction reads its operands from shared memory each time it runs: where a tile's columns take two instructions,
/// half of that is saved by what each warp loads here once.
template <bool kForward>
class Operands {
 public:
  /// first: the address of the warpgroup's part of the first stage.
  __device__ __forceinline__ explicit Operands(std::uint32_t first) {
    const std::uint32_t lane = threadIdx.x % 32;
    const std::uint32_t warp = threadIdx.x / 32 % 4;
    const std::uint32_t row = lane % 8;  // of an 8 x 8 matrix
    const std::uint32_t next_features = lane / 8 % 2;
    const std::uint32_t next_inner = lane / 16;
    // A line holds units of 16 bytes, which the 128-byte swizzle puts elsewhere.
    if constexpr (kForward) {
      first_ = first + (16 * warp + 8 * next_features + row) * kLineBytes + (next_inner ^ row) * 16;
    } else {
      first_ = first + (8 * next_inner + row) * kLineBytes + ((2 * warp + next_features) ^ row) * 16;
    }
  }

  /// Those of instruction `i` of the chunk in the stage that is so many bytes behind the first.
  __device__ __forceinline__ void load(std::uint32_t (&operands)[4], std::uint32_t stage, int i) const {
    const uint4 words =
        kForward ? load_matrices((first_ + stage) ^ i * 32) : load_transposed(first_ + stage + i * 16 * kLineBytes);
    operands[0] = words.x;
    operands[1] = words.y;
    operands[2] = words.z;
    operands[3] = words.w;
  }

 private:
  std::uint32_t first_;
};

}  // namespace qshard::optimized::wide

#endif
