#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace qshard {

/// A named tensor's values as float. Throws Error(bad_input), naming it, where it is missing or of another shape.
std::vector<float> named_floats(const NamedTensors& tensors, const std::string& name, const Shape& shape);

/// Throws Error(bad_input), naming one, where `tensors` holds more than the `used` ones that belong to the model.
void reject_unknown(const NamedTensors& tensors, std::size_t used, std::string_view what);

}  // namespace qshard
