#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/lora_options.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// PEFT's initialization of an adapter's A [r, in], from random numbers of our own. The values depend on the seed and
/// the parameter's name alone, so that every engine and every world size begins with the same adapter.
std::vector<float> lora_a_values(LoraStart start, std::uint64_t seed, const std::string& name, const Shape& shape);

}  // namespace qshard
