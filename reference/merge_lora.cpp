#include "reference/merge_lora.h"

#include "core/base/error.h"
#include "reference/linear4bit.h"

namespace qshard::reference {

Tensor merge_lora(const TensorView& weight, const TensorView& a, const TensorView& b, double scaling) {
  const bool fits = weight.shape.size() == 2 && a.shape.size() == 2 && b.shape.size() == 2 &&
                    b.shape[0] == weight.shape[0] && a.shape[1] == weight.shape[1] && b.shape[1] == a.shape[0];
  if (!fits) {
    fail_input("A {} and B {} do not fit a weight of shape {}", to_string(a.shape), to_string(b.shape),
               to_string(weight.shape));
  }
  Matrix<float> delta = to_matrix<float>(b, DType::f32) * to_matrix<float>(a, DType::f32);
  delta *= static_cast<float>(scaling);
  std::vector<float> merged = to_floats(weight);
  for (std::size_t i = 0; i < merged.size(); ++i) merged[i] += delta.data()[i];
  return from_floats(merged, weight.dtype, weight.shape);
}

}  // namespace qshard::reference
