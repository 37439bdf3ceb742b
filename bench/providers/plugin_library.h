#pragma once

#include <string>

#include "bench/providers/qshard_provider.h"

namespace qshard::bench {

/// The table of a shared library that exports qshard_provider_v2(). The library stays loaded until the process ends,
/// since its kernels and its table stay in use. Needs no GPU. Throws Error(bad_input) naming `path` where it cannot be
/// loaded, exports nothing of the kind, was made for another version of the interface, or lacks a name or run.
const qshard_provider& load_plugin(const std::string& path);

}  // namespace qshard::bench
