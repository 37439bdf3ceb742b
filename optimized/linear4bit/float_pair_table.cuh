#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"

namespace qshard::optimized {

/// As PairTable, with pairs of floats that are not rounded: 32 copies of 8 bytes.
class FloatPairTable {
 public:
  static constexpr int kBytes = 256 * 256;

  /// `memory`: kBytes of shared memory, aligned to 16 bytes.
  __device__ __forceinline__ explicit FloatPairTable(unsigned char* memory)
      : memory_(memory), lane_offset_(threadIdx.x % 32 * sizeof(float2)) {}

  /// Called by threads 0 to `threads` - 1 of the block.
  __device__ __forceinline__ void fill(const CodebookValues& codebook, int threads) const {
    for (int i = static_cast<int>(threadIdx.x); i < 256 * 16; i += threads) {
      const int byte = i / 16;
      const float first = codebook.value[byte / 16];
      const float second = codebook.value[byte % 16];
      *reinterpret_cast<float4*>(memory_ + 256 * byte + 16 * (i % 16)) = make_float4(first, second, first, second);
    }
  }

  /// The pair of byte `byte` of `word`: the high nibble's centroid, then the low one's.
  __device__ __forceinline__ float2 operator()(std::uint32_t word, int byte) const { return at(word, index(byte)); }

  /// The same for a byte that is not known when compiling; index(byte), made once.
  __device__ __forceinline__ float2 at(std::uint32_t word, std::uint32_t index) const {
    return *reinterpret_cast<const float2*>(memory_ + __byte_perm(word, lane_offset_, index));
  }
  __device__ __forceinline__ static std::uint32_t index(std::uint32_t byte) { return 0x5504 | byte << 4; }

 private:
  unsigned char* memory_;
  std::uint32_t lane_offset_;
};

}  // namespace qshard::optimized
