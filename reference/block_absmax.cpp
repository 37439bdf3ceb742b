#include "reference/block_absmax.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

namespace qshard::reference {

float block_absmax(std::span<const float> block, int blocksize) {
  constexpr std::int32_t kInfinity = 0x7F800000;
  constexpr std::int32_t kSmallestNormal = 0x00800000;
  // Magnitudes compare like their bits, as integers, which leaves the order of the comparisons open.
  std::int32_t largest = -1;
  for (const float value : block) {
    const auto magnitude = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU);
    largest = std::max(largest, magnitude > kInfinity ? -1 : magnitude);
  }
  const bool padded = block.size() < static_cast<std::size_t>(blocksize);
  if (largest < 0 && !padded) return std::numeric_limits<float>::lowest();
  return largest < kSmallestNormal ? 0.0F : std::bit_cast<float>(largest);
}

}  // namespace qshard::reference
