#pragma once

namespace qshard::optimized {

/// A function of the driver, found through the runtime, so that nothing links the driver's library. version: of CUDA
/// whose form of the function is meant, 12000 for 12.0. Throws Error(rank_failed) where this driver does not have it.
void* find_driver_function(const char* name, unsigned version);

template <typename Function>
Function driver_function(const char* name, unsigned version) {
  return reinterpret_cast<Function>(find_driver_function(name, version));
}

}  // namespace qshard::optimized
