#include "optimized/sharded/device_choice.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

void choose_device(RankLink& link) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    fail_input("device: cuda needs an NVIDIA GPU and its driver, but there is none to use ({}); use device: cpu",
               cudaGetErrorString(status));
  }
  QSHARD_CUDA_CHECK(cudaSetDevice(link.local_rank() % count));
  QSHARD_CUDA_CHECK(cudaFree(nullptr));  // makes the context, and shows a GPU that this build has no code for
}

}  // namespace qshard::optimized
