#include "reference/nearest_code.h"

#include <cstddef>

namespace qshard::reference {

std::uint8_t nearest_code(float x, const std::array<float, 256>& map) {
  std::size_t below = 0;
  std::size_t pivot = 127;
  std::size_t above = 255;
  for (std::size_t step = 64; step > 0; step /= 2) {
    if (x > map[pivot]) {
      below = pivot;
      pivot += step;
    } else {
      above = pivot;
      pivot -= step;
    }
  }
  if (x > map[pivot]) {
    const float midpoint = (map[above] + map[pivot]) * 0.5F;
    return static_cast<std::uint8_t>(x > midpoint ? above : pivot);
  }
  const float midpoint = (map[below] + map[pivot]) * 0.5F;
  return static_cast<std::uint8_t>(x < midpoint ? below : pivot);
}

}  // namespace qshard::reference
