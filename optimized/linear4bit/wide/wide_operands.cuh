#pragma once

#include <cstdint>

#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// The first operands of a warpgroup's matrix instructions, its 64 features of the dequantized weight, in registers.
/// From shared memory each instruction reads them again: where a chunk's columns take two instructions beside each
/// other, a warp that loads them once halves these reads. They lie in registers as wgmma's first operand of 64 by 16
/// does.
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

  /// Those of a chunk's instructions number `i`. offset: bytes from the first stage to the chunk's.
  __device__ __forceinline__ void load(std::uint32_t (&operands)[4], std::uint32_t offset, int i) const {
    if constexpr (kForward) {
      ldmatrix(operands, (first_ + offset) ^ i * 32);
    } else {
      ldmatrix_transposed(operands, first_ + offset + i * 16 * kLineBytes);
    }
  }

 private:
  std::uint32_t first_;  // the lane's row of the first stage's matrices for instruction 0
};

}  // namespace qshard::optimized::wide

#endif
