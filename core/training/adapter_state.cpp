#include "core/training/adapter_state.h"

#include "core/base/error.h"

namespace qshard {

std::vector<float> named_floats(const NamedTensors& tensors, const std::string& name, const Shape& shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) fail_input("tensor {} is missing; the model's adapter needs it", name);
  if (found->second.shape() != shape) {
    fail_input("tensor {} has shape {}, but the model's adapter needs {}; check r and target_modules", name,
               to_string(found->second.shape()), to_string(shape));
  }
  return to_floats(found->second.view());
}

void reject_unknown(const NamedTensors& tensors, std::size_t used, std::string_view what) {
  if (tensors.size() == used) return;
  fail_input("the {} holds {} tensors, but the model's adapter has {}; check target_modules", what, tensors.size(),
             used);
}

}  // namespace qshard
