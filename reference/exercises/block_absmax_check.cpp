// Checks the exercise block_absmax: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE
#include "reference/exercises/checking.h"
#include "reference/quantize.h"

int main() {
  using namespace qshard;
  std::vector<float> weight;
  for (int i = 0; i < 150; ++i) weight.push_back(static_cast<float>((i * 31) % 97) / 97.0F - 0.5F);
  const Tensor tensor = from_floats(weight, DType::f32, {150});
  const Weight4bit expected = reference::quantize(tensor.view(), {.blocksize = 64, .double_quant = false}, "weight");
  return compare("absmax of 150 elements in blocks of 64", block_absmax(weight, 64), expected.absmax);
}
