#pragma once

#include <string>

namespace qshard {

/// What this machine's processor calls itself, for the context of results; "unknown processor" where it has no name.
std::string processor_name();

/// Threads that one of `processes` equal ones on this machine may start, 1 to 16.
int processor_share(int processes);

}  // namespace qshard
