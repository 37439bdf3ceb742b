// Checks the exercise dequantize_one: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE
#include "reference/dequantize.h"
#include "reference/exercises/checking.h"
#include "reference/quantize.h"

int main() {
  using namespace qshard;
  std::vector<float> weight;
  for (int i = 0; i < 256; ++i) weight.push_back(static_cast<float>((i * 31) % 97) / 97.0F - 0.4F);
  const Tensor tensor = from_floats(weight, DType::f32, {256});
  const Weight4bit quantized = reference::quantize(tensor.view(), {.blocksize = 64, .double_quant = false}, "weight");
  std::vector<float> found;
  for (std::size_t i = 0; i < 256; ++i) {
    found.push_back(dequantize_one(quantized.codes, quantized.absmax, kNf4Values, 64, i));
  }
  return compare("dequantized elements", found, to_floats(reference::dequantize(quantized.view(), DType::f32).view()));
}
