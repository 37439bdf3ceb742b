#include "correctness/gpu/bitsandbytes_library.h"

#include <cstdlib>
#include <string>

#include <dlfcn.h>

#include "core/base/error.h"
#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"

namespace qshard::test {

namespace {

using Quantize = void (*)(const float*, const void*, float*, std::uint8_t*, int, int);
using Dequantize = void (*)(const float*, const std::uint8_t*, const float*, void*, int, int, cudaStream_t);

using Adam8bit = void (*)(void*, void*, std::uint8_t*, std::uint8_t*, float, float, float, float, float, int, float,
                          const float*, const float*, float*, float*, float, float, bool, int);

const char* short_name(DType dtype) {
  return dtype == DType::f32 ? "fp32" : dtype == DType::f16 ? "fp16" : "bf16";
}

}  // namespace

BitsandbytesLibrary::BitsandbytesLibrary() {
  const char* path = std::getenv("QSHARD_BITSANDBYTES_LIBRARY");
  if (path == nullptr) {
    why_ = "QSHARD_BITSANDBYTES_LIBRARY is not set to bitsandbytes' libbitsandbytes_cuda*.so";
    return;
  }
  handle_ = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) why_ = dlerror();
}

void* BitsandbytesLibrary::function(const char* what, DType dtype, QuantType type) const {
  const std::string name = fmt::format("{}_{}_{}", what, short_name(dtype), to_string(type));
  void* found = dlsym(handle_, name.c_str());
  if (found == nullptr) fail_input("the bitsandbytes library has no {}", name);
  return found;
}

void BitsandbytesLibrary::quantize(const void* weight, DType dtype, int elements, QuantType type, int blocksize,
                                   std::uint8_t* codes, float* absmax) const {
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  reinterpret_cast<Quantize>(function("cquantize_blockwise", dtype, type))(nullptr, weight, absmax, codes, blocksize,
                                                                           elements);
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

void BitsandbytesLibrary::dequantize(const std::uint8_t* codes, const float* absmax, DType dtype, int elements,
                                     QuantType type, int blocksize, void* out) const {
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  reinterpret_cast<Dequantize>(function("cdequantize_blockwise", dtype, type))(nullptr, codes, absmax, out, blocksize,
                                                                               elements, nullptr);
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

void BitsandbytesLibrary::quantize_8bit(const float* map, const float* values, int count, std::uint8_t* codes,
                                        float* absmax) const {
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  void* found = dlsym(handle_, "cquantize_blockwise_fp32");
  if (found == nullptr) fail_input("the bitsandbytes library has no cquantize_blockwise_fp32");
  reinterpret_cast<Quantize>(found)(map, values, absmax, codes, static_cast<int>(kNestedBlocksize), count);
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

void BitsandbytesLibrary::adam_8bit(DType dtype, void* parameter, void* gradient, const optimized::Moment8bit& exp_avg,
                                    const optimized::Moment8bit& exp_avg_sq, const AdamWOptions& options,
                                    double learning_rate, int step, int elements) const {
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  const std::string name = fmt::format("cadam_8bit_blockwise_grad_{}", short_name(dtype));
  void* found = dlsym(handle_, name.c_str());
  if (found == nullptr) fail_input("the bitsandbytes library has no {}", name);
  reinterpret_cast<Adam8bit>(found)(parameter, gradient, exp_avg.codes, exp_avg_sq.codes,
                                    static_cast<float>(options.beta1), static_cast<float>(options.beta2), 0.0F, 0.0F,
                                    static_cast<float>(options.epsilon), step, static_cast<float>(learning_rate),
                                    exp_avg.map, exp_avg_sq.map, exp_avg.absmax, exp_avg_sq.absmax,
                                    static_cast<float>(options.weight_decay), 1.0F, false, elements);
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace qshard::test
