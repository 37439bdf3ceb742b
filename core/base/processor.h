#pragma once

#include <string>

namespace qshard {

/// What this machine's processor calls itself, for the context of results; "unknown processor" where it has no name.
std::string processor_name();

}  // namespace qshard
