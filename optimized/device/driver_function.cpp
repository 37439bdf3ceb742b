#include "optimized/device/driver_function.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

void* find_driver_function(const char* name, unsigned version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  QSHARD_CUDA_CHECK(cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &result));
  if (function == nullptr) fail(ExitCode::rank_failed, "this driver has no {}", name);
  return function;
}

}  // namespace qshard::optimized
