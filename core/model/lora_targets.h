#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qshard {

/// As the only target: every linear layer but the output head.
inline constexpr std::string_view kAllLinear = "all-linear";

/// True where a list of target modules takes in the module, as PEFT reads it: a name is the whole module name, or its
/// end after a dot ("q_proj"); "all-linear" alone takes in everything but the output head.
bool is_target(const std::vector<std::string>& target_modules, std::string_view module);

}  // namespace qshard
