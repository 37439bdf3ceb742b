#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"

namespace qshard {

/// PEFT's initialization of an adapter's A [r, in]: uniform in +-1 / sqrt(in). The values depend on the seed and the
/// parameter's name alone, so that every engine and every world size begins with the same adapter. B begins at zero.
std::vector<float> lora_a_values(std::uint64_t seed, const std::string& name, const Shape& shape);

}  // namespace qshard
