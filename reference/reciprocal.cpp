#include "reference/reciprocal.h"

#include <bit>
#include <cmath>

#include "reference/flush_to_zero.h"

// The table file, as it is, in read-only memory: 2 bits a mantissa, which are the GPU's result minus the correctly
// rounded one in ulps, plus 1; four to a byte, lowest bits first.
asm(".pushsection .rodata\n"
    ".global qshard_reciprocal_table\n"
    "qshard_reciprocal_table:\n"
    ".incbin \"" QSHARD_RECIPROCAL_TABLE
    "\"\n"
    ".popsection\n");
extern "C" const unsigned char qshard_reciprocal_table[(1U << 23) / 4];

namespace qshard::reference {
namespace {

int ulps_off(std::uint32_t mantissa) {
  return static_cast<int>(qshard_reciprocal_table[mantissa / 4] >> mantissa % 4 * 2 & 3U) - 1;
}

}  // namespace

float reciprocal(float x, Reciprocal kind) {
  if (kind == Reciprocal::ieee) return 1.0F / x;
  const float rounded = 1.0F / flush_to_zero(x);
  if (!std::isnormal(rounded)) return flush_to_zero(rounded);
  const std::uint32_t mantissa = std::bit_cast<std::uint32_t>(x) & 0x7FFFFFU;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(rounded) + static_cast<std::uint32_t>(ulps_off(mantissa)));
}

}  // namespace qshard::reference
