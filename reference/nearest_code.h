#pragma once

#include <array>
#include <cstdint>

namespace qshard::reference {

/// Index of the entry of an ascending `map` that is nearest to x, by bitsandbytes' search: seven halvings from the
/// middle end at an even index; then x goes to that entry or to its neighbour on x's side, whichever is nearer. A tie
/// stays on the even index; NaN ends at index 0.
std::uint8_t nearest_code(float x, const std::array<float, 256>& map);

}  // namespace qshard::reference
