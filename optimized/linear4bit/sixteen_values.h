#pragma once

#include <cstdint>

#include "optimized/host_device.h"

namespace qshard::optimized {

/// Byte i of the result is the byte of a (0 to 3) or b (4 to 7) that the lower three bits of nibble i of `select` name.
QSHARD_HOST_DEVICE std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t select) {
#ifdef __CUDA_ARCH__
  std::uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(select));
  return result;
#else
  const std::uint64_t bytes = a | std::uint64_t{b} << 32;
  std::uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<std::uint32_t>(bytes >> 8 * (select >> 4 * i & 7U) & 0xFFU) << 8 * i;
  }
  return result;
#endif
}

/// a & b | c in one instruction.
QSHARD_HOST_DEVICE std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#ifdef __CUDA_ARCH__
  std::uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
#else
  return (a & b) | c;
#endif
}

/// Sixteen values of two bytes in registers, lower and upper bytes apart, so that byte permutations look codes up, four
/// at a time.
class SixteenValues {
 public:
  /// pair(i): values i and i + 1, the first in the lower half.
  template <typename Pair>
  QSHARD_HOST_DEVICE explicit SixteenValues(const Pair& pair) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t first = pair(4 * i);
      const std::uint32_t second = pair(4 * i + 2);
      lower_[i] = permute_bytes(first, second, 0x6420);
      upper_[i] = permute_bytes(first, second, 0x7531);
    }
  }

  /// The values of a word of packed codes, in order, two a word.
  QSHARD_HOST_DEVICE void look_up(std::uint32_t codes, std::uint32_t& v01, std::uint32_t& v23, std::uint32_t& v45,
                                  std::uint32_t& v67) const {
    const Choice choice(codes);
    const Found first = find(choice.code, choice.half);
    const Found second = find(choice.code >> 16, choice.half >> 16);
    v01 = permute_bytes(first.lower, first.upper, 0x4051);
    v23 = permute_bytes(first.lower, first.upper, 0x6273);
    v45 = permute_bytes(second.lower, second.upper, 0x4051);
    v67 = permute_bytes(second.lower, second.upper, 0x6273);
  }

  /// The same, the even ones and the odd ones apart.
  QSHARD_HOST_DEVICE void look_up_apart(std::uint32_t codes, std::uint32_t& v02, std::uint32_t& v46, std::uint32_t& v13,
                                        std::uint32_t& v57) const {
    const Choice choice(codes);
    const Found first = find(choice.code, choice.half);
    const Found second = find(choice.code >> 16, choice.half >> 16);
    v02 = permute_bytes(first.lower, first.upper, 0x7351);
    v46 = permute_bytes(second.lower, second.upper, 0x7351);
    v13 = permute_bytes(first.lower, first.upper, 0x6240);
    v57 = permute_bytes(second.lower, second.upper, 0x6240);
  }

 private:
  /// A permutation chooses among eight bytes, by three bits of each code; the fourth bit, between what two of them
  /// chose.
  struct Choice {
    std::uint32_t code;
    std::uint32_t half;

    QSHARD_HOST_DEVICE explicit Choice(std::uint32_t codes)
        : code(and_or(codes, 0x77777777U, 0)), half(and_or(codes >> 1, 0x44444444U, 0x32103210U)) {}
  };

  /// Of four codes the values' lower and upper bytes, in the order 1, 0, 3, 2: a byte of codes has its first one in the
  /// upper half.
  struct Found {
    std::uint32_t lower;
    std::uint32_t upper;
  };

  QSHARD_HOST_DEVICE Found find(std::uint32_t code, std::uint32_t half) const {
    return {find(lower_, code, half), find(upper_, code, half)};
  }

  QSHARD_HOST_DEVICE static std::uint32_t find(const std::uint32_t (&bytes)[4], std::uint32_t code,
                                               std::uint32_t half) {
    return permute_bytes(permute_bytes(bytes[0], bytes[1], code), permute_bytes(bytes[2], bytes[3], code), half);
  }

  std::uint32_t lower_[4];
  std::uint32_t upper_[4];
};

}  // namespace qshard::optimized
