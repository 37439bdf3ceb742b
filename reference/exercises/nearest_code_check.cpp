// Checks the exercise nearest_code: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE

#include <limits>

#include "core/tensor/codebook.h"
#include "reference/exercises/checking.h"
#include "reference/quantize.h"

int main() {
  using namespace qshard;
  std::vector<float> x;
  for (int i = -1000; i <= 1000; ++i) x.push_back(static_cast<float>(i) / 1000.0F);
  for (const float threshold : kNf4Thresholds) x.push_back(threshold);  // a tie belongs to the lower code
  x.push_back(std::numeric_limits<float>::quiet_NaN());
  x.resize((x.size() + 63) / 64 * 64, 1.0F);
  std::vector<std::uint8_t> found;
  for (const float value : x) found.push_back(nearest_code(value, kNf4Thresholds));
  // The reference, on blocks whose absmax is 1: every block of 32 gets a 1 at its end.
  std::vector<std::uint8_t> expected;
  for (const float value : x) {
    std::vector<float> block(32, 1.0F);
    block[0] = value;
    const Tensor tensor = from_floats(block, DType::f32, {32});
    const Weight4bit weight = reference::quantize(tensor.view(), {.blocksize = 32, .double_quant = false}, "x");
    expected.push_back(weight.codes[0] >> 4);
  }
  return compare("codes of NF4", found, expected);
}
