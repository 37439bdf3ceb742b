// Checks the exercise nested_scale: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE
#include "reference/double_quant.h"
#include "reference/exercises/checking.h"
#include "reference/quantize.h"

int main() {
  using namespace qshard;
  std::vector<float> weight;
  for (int i = 0; i < 32 * 600; ++i) weight.push_back(static_cast<float>((i * 7919) % 10007) / 10007.0F - 0.4F);
  const Tensor tensor = from_floats(weight, DType::f32, {32 * 600});
  const QuantizationOptions options{.blocksize = 32};
  const Weight4bit quantized = reference::quantize(tensor.view(), options, "weight");
  std::vector<float> found;
  for (std::size_t i = 0; i < quantized.absmax_codes.size(); ++i) {
    const float offset = quantized.info.offset;
    found.push_back(nested_scale(quantized.absmax_codes, dynamic_map(), quantized.nested_absmax, offset, i));
  }
  return compare("scales of 600 blocks", found, reference::decode_absmax(quantized.view()));
}
