#include "core/model/lora_targets.h"

#include <algorithm>

namespace qshard {
namespace {

constexpr std::string_view kOutputHead = "lm_head";

}  // namespace

bool is_target(const std::vector<std::string>& target_modules, std::string_view module) {
  const auto ends_module = [&](std::string_view name) {
    return module == name ||
           (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
  };
  if (target_modules.size() == 1 && target_modules.front() == kAllLinear) return !ends_module(kOutputHead);
  return std::any_of(target_modules.begin(), target_modules.end(), ends_module);
}

}  // namespace qshard
