#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"

namespace qshard::optimized {

/// Every pair of centroids as two T in one word, once for each memory bank: lane l reads copy l, so that no look-up
/// waits for another. Byte b of packed codes is row b: the centroid of its high nibble in the lower half. Rows are 256
/// bytes apart, so that one byte permutation makes a look-up's place in the table.
class PairTable {
 public:
  static constexpr int kBytes = 256 * 256;

  /// `memory`: kBytes of shared memory, aligned to 16 bytes.
  __device__ __forceinline__ explicit PairTable(unsigned char* memory)
      : memory_(memory), lane_offset_(threadIdx.x % 32 * sizeof(std::uint32_t)) {}

  /// Called by threads 0 to 255 of the block at least. Each makes the pair of one byte; their warps then write the
  /// copies of 32 bytes, four bytes at a time.
  template <typename T>
  __device__ __forceinline__ void fill(const CodebookValues& codebook) const {
    const unsigned byte = threadIdx.x;
    if (byte >= 256) return;
    const std::uint32_t own = round_pair<T>(codebook.value[byte / 16], codebook.value[byte % 16]);
    const unsigned lane = byte % 32;
    unsigned char* const rows = memory_ + 256 * (byte - lane + lane / 8) + 16 * (lane % 8);
#pragma unroll
    for (int first = 0; first < 32; first += 4) {
      const std::uint32_t pair = __shfl_sync(0xFFFFFFFFU, own, static_cast<int>(first + lane / 8));
      *reinterpret_cast<uint4*>(rows + 256 * first) = make_uint4(pair, pair, pair, pair);
    }
  }

  /// The pair of byte `index` of `word`.
  __device__ __forceinline__ std::uint32_t operator()(std::uint32_t word, int index) const {
    return *reinterpret_cast<const std::uint32_t*>(memory_ + __byte_perm(word, lane_offset_, 0x5504 | index << 4));
  }

 private:
  unsigned char* memory_;
  std::uint32_t lane_offset_;
};

}  // namespace qshard::optimized
