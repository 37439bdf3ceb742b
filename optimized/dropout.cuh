#pragma once

#include <cstdint>

#include "optimized/dropout.h"

// The masks of reference/dropout.h on the device, for every kernel that drops elements.
namespace qshard::optimized {

/// A DropoutMask as kernels take it, by value. probability 0: everything is kept and multiplied by 1.
struct DropoutKey {
  std::uint32_t key[2];
  std::uint32_t place;      // layer and projection, beside the feature's bits
  std::uint32_t step;       // mod 2^32
  std::uint32_t threshold;  // a word below it drops its element
  float scale;              // 1 / (1 - probability)

  explicit DropoutKey(const DropoutMask& mask)
      : key{static_cast<std::uint32_t>(mask.seed), static_cast<std::uint32_t>(mask.seed >> 32)},
        place(mask.layer << 16 | mask.projection << 28),
        step(static_cast<std::uint32_t>(mask.step)),
        threshold(static_cast<std::uint32_t>(mask.probability * 0x1p32)),
        scale(static_cast<float>(1 / (1 - mask.probability))) {}
};

/// Philox4x32-10 (Salmon et al., SC 2011), as reference::philox4x32.
__device__ __forceinline__ uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t left = std::uint64_t{0xD2511F53} * counter.x;
    const std::uint64_t right = std::uint64_t{0xCD9E8D57} * counter.z;
    counter = make_uint4(static_cast<std::uint32_t>(right >> 32) ^ counter.y ^ key.x, static_cast<std::uint32_t>(right),
                         static_cast<std::uint32_t>(left >> 32) ^ counter.w ^ key.y, static_cast<std::uint32_t>(left));
    key.x += 0x9E3779B9;  // the golden ratio
    key.y += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

/// The random words of four neighbouring features of the token at `position` of the row `row_id`: those from
/// feature / 4 * 4 on, one word each, in order.
__device__ __forceinline__ uint4 dropout_words(const DropoutKey& mask, std::int32_t position, std::uint32_t row_id,
                                               std::uint32_t feature) {
  const std::uint32_t place = mask.place | feature / 4;
  return philox4x32(make_uint4(static_cast<std::uint32_t>(position), place, row_id, mask.step),
                    make_uint2(mask.key[0], mask.key[1]));
}

/// x scaled where its word keeps it, else 0; one rounding to float, and the caller rounds to the dtype.
__device__ __forceinline__ float drop_or_scale(const DropoutKey& mask, std::uint32_t word, float x) {
  return word >= mask.threshold ? __fmul_rn(x, mask.scale) : 0.0F;
}

}  // namespace qshard::optimized
