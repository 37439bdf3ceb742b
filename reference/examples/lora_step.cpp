// One training step of one layer: y = W x + (alpha / r) B A x with a frozen 4-bit W. Only A and B learn.
#include <fmt/core.h>

#include "reference/linear4bit.h"
#include "reference/quantize.h"

namespace {

using qshard::reference::Matrix;

// A pattern instead of random numbers, so that everybody sees the same.
Matrix<float> pattern(int rows, int columns, float scale) {
  Matrix<float> values(rows, columns);
  for (int i = 0; i < values.size(); ++i)
    values.data()[i] = scale * (static_cast<float>((i * 7 + 3) % 11) - 5.0F) / 5.0F;
  return values;
}

float half_square(const Matrix<float>& difference) {
  return 0.5F * difference.squaredNorm();
}

}  // namespace

int main() {
  using namespace qshard;
  constexpr int kTokens = 4;
  constexpr int kIn = 64;
  constexpr int kOut = 3;
  constexpr int kRank = 2;
  const double scaling = 4.0 / kRank;  // alpha / r

  const Matrix<float> dense = pattern(kOut, kIn, 0.1F);
  const Tensor tensor = from_floats({dense.data(), static_cast<std::size_t>(dense.size())}, DType::f32, {kOut, kIn});
  const Weight4bit quantized = reference::quantize(tensor.view(), {.double_quant = false}, "W");
  reference::LinearWeights<float> layer;
  layer.quantized = quantized.view();

  reference::Lora<float> lora{pattern(kRank, kIn, 0.1F), Matrix<float>::Zero(kOut, kRank)};  // B starts at zero
  const Matrix<float> x = pattern(kTokens, kIn, 1.0F);
  const Matrix<float> target = pattern(kTokens, kOut, 2.0F);

  fmt::print("W [{}, {}] is frozen: {} bytes. A [{}, {}] and B [{}, {}] learn: {} numbers.\n", kOut, kIn,
             quantized.codes.size() + 4 * quantized.absmax.size(), kRank, kIn, kOut, kRank,
             lora.a.size() + lora.b.size());
  for (int step = 1; step <= 4; ++step) {
    Matrix<float> y = reference::linear4bit_forward(layer, DType::f32, x);
    reference::lora_forward(lora, scaling, DType::f32, x, y);
    const Matrix<float> dy = y - target;  // the gradient of half the squared distance
    reference::Lora<float> gradient{Matrix<float>::Zero(kRank, kIn), Matrix<float>::Zero(kOut, kRank)};
    reference::lora_backward(lora, scaling, DType::f32, x, dy, gradient);
    fmt::print("step {}: loss {:8.4f}   |dA| {:8.4f}   |dB| {:8.4f}{}\n", step, half_square(dy), gradient.a.norm(),
               gradient.b.norm(), step == 1 ? "   (B = 0, so nothing reaches A yet)" : "");
    lora.a -= 0.02F * gradient.a;
    lora.b -= 0.02F * gradient.b;
  }
}
