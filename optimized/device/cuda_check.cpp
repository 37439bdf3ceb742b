#include "optimized/device/cuda_check.h"

#include <cstdint>

#include "core/base/error.h"
#include "core/tensor/weight4bit.h"

namespace qshard::optimized {

namespace {

ExitCode exit_code_of(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return ExitCode::out_of_resources;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
      return ExitCode::bad_input;
    default:
      return ExitCode::rank_failed;
  }
}

const char* advice(cudaError_t status) {
  switch (status) {
    case cudaErrorNoKernelImageForDevice:
      return "; this GPU is not among QSHARD_CUDA_ARCHITECTURES (8.0 is the oldest supported): build for it";
    case cudaErrorInsufficientDriver:
      return "; update the NVIDIA driver";
    default:
      return "";
  }
}

}  // namespace

void check_cuda(cudaError_t status, const char* statement, const char* file, int line) {
  if (status == cudaSuccess) return;
  fail(exit_code_of(status), "{} ({}){}: {} at {}:{}", cudaGetErrorString(status), cudaGetErrorName(status),
       advice(status), statement, file, line);
}

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  QSHARD_CUDA_CHECK(cudaGetDevice(&device));
  QSHARD_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

void check_pointer(const void* pointer, std::size_t alignment, const char* what) {
  if (pointer == nullptr) fail_input("{} is a null pointer", what);
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    fail_input("{} ({}) is not aligned to {} bytes", what, pointer, alignment);
  }
}

void check_floating(DType dtype, const char* what) {
  if (!is_floating(dtype)) fail_input("{} cannot be {}: use float32, float16 or bfloat16", what, torch_name(dtype));
}

void check_blocksize(std::int64_t blocksize) {
  if (!is_supported_blocksize(blocksize)) {
    fail_input("block size {} is not supported: use 32, 64, 128, 256, 512, 1024, 2048 or 4096", blocksize);
  }
}

void check_at_least(std::int64_t value, std::int64_t least, const char* what) {
  if (value < least) fail_input("{} is {}, but must be at least {}", what, value, least);
}

void check_at_most(std::int64_t value, std::int64_t most, const char* what) {
  if (value > most) fail_input("{} is {}, but must be at most {}", what, value, most);
}

void check_multiple(std::int64_t value, std::int64_t factor, const char* what) {
  if (value % factor != 0) fail_input("{} is {}, but must be a multiple of {}", what, value, factor);
}

}  // namespace qshard::optimized
