#pragma once

#include <string_view>

namespace qshard {

/// Advice for a name that transformers, TRL, PEFT or accelerate have and this configuration has not: what it is called
/// here, or why it is missing. Empty for other names. `name` comes without its section.
std::string_view foreign_option_advice(std::string_view name);

/// The same for a name of transformers' optim.
std::string_view foreign_optimizer_advice(std::string_view name);

}  // namespace qshard
