// Double quantization: the scales of 512 blocks are quantized to 8 bits themselves.
#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "core/tensor/codebook.h"
#include "reference/double_quant.h"

int main() {
  using namespace qshard;
  std::vector<float> absmax(512);  // of 512 blocks of 64 weights each
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    absmax[i] = 0.05F + 0.01F * std::sin(0.7F * static_cast<float>(i));
  }
  const reference::NestedAbsmax nested =
      reference::nest_absmax(absmax, dynamic_map(), std::nullopt, reference::Reciprocal::gpu);
  fmt::print("512 scales between 0.04 and 0.06. Their mean, {:.6f}, is taken off first (offset),\n", nested.offset);
  fmt::print("then each 256 of them get a scale of their own: {:.6f} and {:.6f}.\n\n", nested.nested_absmax[0],
             nested.nested_absmax[1]);

  fmt::print("  absmax     minus offset  code  map[code]  map * scale + offset  error\n");
  double worst = 0;
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    const float value = dynamic_map()[nested.codes[i]];
    const float back = value * nested.nested_absmax[i / 256] + nested.offset;
    worst = std::max(worst, std::abs(static_cast<double>(back) - absmax[i]));
    if (i >= 6) continue;
    fmt::print("  {:.6f}   {:+.6f}     {:4}  {:+.5f}   {:.6f}              {:+.6f}\n", absmax[i],
               absmax[i] - nested.offset, nested.codes[i], value, back, back - absmax[i]);
  }
  const double plain = 4.0 + 32.0 / 64;
  const double doubled = 4.0 + 8.0 / 64 + 32.0 / (64.0 * 256);
  fmt::print("\nworst error of a scale: {:.6f}, {:.2f} % of the mean scale\n", worst, 100 * worst / nested.offset);
  fmt::print("bits a weight: {:.3f} with scales of 32 bits, {:.3f} with nested ones: {:.2f} GB less in a 70B model\n",
             plain, doubled, (plain - doubled) / 8 * 70);
}
