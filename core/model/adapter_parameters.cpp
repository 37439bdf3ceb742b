#include "core/model/adapter_parameters.h"

#include <string_view>
#include <utility>

namespace qshard {

std::vector<Parameter> adapter_parameters(const LoraOptions& lora, const std::string& path, const LinearModule& module,
                                          DType dtype) {
  const std::int64_t r = lora.module(path).r;
  std::vector<Parameter> list;
  const auto add = [&](std::string_view part, Shape shape, ParameterRole role) {
    list.push_back({path + std::string(part), ParameterKind::trained, dtype, std::move(shape), role, module.role});
  };
  add(".lora_A.weight", {r, module.in}, ParameterRole::lora_a);
  add(".lora_B.weight", {module.out, r}, ParameterRole::lora_b);
  if (lora.lora_bias) add(".lora_B.bias", {module.out}, ParameterRole::lora_bias);
  if (lora.use_dora) add(".lora_magnitude_vector", {module.out}, ParameterRole::dora_magnitude);
  return list;
}

}  // namespace qshard
