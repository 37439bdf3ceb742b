// Quantizes one block of 64 numbers to NF4, shows what is stored, and takes it back.
#include <cmath>

#include <fmt/core.h>

#include "core/tensor/codebook.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

int main() {
  using namespace qshard;
  fmt::print("The 16 values of NF4, quantiles of a normal distribution scaled to [-1, 1]:\n ");
  for (std::size_t code = 0; code < 16; ++code) {
    fmt::print(" {:+.4f}{}", kNf4Values[code], code % 8 == 7 ? "\n " : "");
  }

  // 64 numbers that look like weights: small, both signs, one of them the largest.
  std::vector<float> weight(64);
  for (int i = 0; i < 64; ++i) weight[i] = 0.02F * std::sin(1.7F * static_cast<float>(i + 1));
  const Tensor tensor = from_floats(weight, DType::f32, {64});

  const Weight4bit quantized =
      reference::quantize(tensor.view(), {.blocksize = 64, .double_quant = false}, "64 numbers");
  fmt::print("\nabsmax = {:.6f}: the largest magnitude, the one scale of this block\n", quantized.absmax[0]);

  const Tensor back = reference::dequantize(quantized.view(), DType::f32);
  const std::vector<float> restored = to_floats(back.view());
  fmt::print("\n  x          x / absmax  code  codebook  back       error\n");
  double sum = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    const unsigned byte = quantized.codes[i / 2];
    const unsigned code = i % 2 == 0 ? byte >> 4 : byte & 15;  // the first of a pair is the high nibble
    sum += std::abs(restored[i] - weight[i]);
    if (i >= 8) continue;
    fmt::print("  {:+.6f}  {:+.4f}     {:4}  {:+.4f}   {:+.6f}  {:+.6f}\n", weight[i], weight[i] / quantized.absmax[0],
               code, kNf4Values[code], restored[i], restored[i] - weight[i]);
  }
  fmt::print("  ... and 56 more\n");
  const std::size_t bytes = quantized.codes.size() + 4;
  fmt::print("\n64 floats are {} bytes; 32 bytes of codes and 4 of absmax are {}: {:.2f} bits a weight\n", 64 * 4,
             bytes, 8.0 * static_cast<double>(bytes) / 64);
  fmt::print("mean error {:.6f}, {:.1f} % of absmax\n", sum / 64, 100 * sum / 64 / quantized.absmax[0]);
}
