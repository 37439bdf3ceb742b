#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"
#include "optimized/adamw8bit.h"

namespace qshard::test {

/// bitsandbytes' CUDA library, as an oracle: its C functions by dlopen. Found where QSHARD_BITSANDBYTES_LIBRARY points;
/// without that, or where it lacks a function, found() is false and why() says so.
class BitsandbytesLibrary {
 public:
  BitsandbytesLibrary();

  [[nodiscard]] bool found() const { return handle_ != nullptr; }
  [[nodiscard]] const char* why() const { return why_; }

  /// Both wait for the device before and after: the library's quantizers use the legacy default stream. Device
  /// pointers; `absmax` must have 64 floats to spare.
  void quantize(const void* weight, DType dtype, int elements, QuantType type, int blocksize, std::uint8_t* codes,
                float* absmax) const;
  void dequantize(const std::uint8_t* codes, const float* absmax, DType dtype, int elements, QuantType type,
                  int blocksize, void* out) const;
  /// The 8-bit quantization of absmax - offset in blocks of 256 that nesting does.
  void quantize_8bit(const float* map, const float* values, int count, std::uint8_t* codes, float* absmax) const;
  /// One step of 8-bit AdamW on `elements` elements; parameter and gradient of `dtype`.
  void adam_8bit(DType dtype, void* parameter, void* gradient, const optimized::Moment8bit& exp_avg,
                 const optimized::Moment8bit& exp_avg_sq, const AdamWOptions& options, double learning_rate, int step,
                 int elements) const;

 private:
  [[nodiscard]] void* function(const char* what, DType dtype, QuantType type) const;
  void* handle_ = nullptr;
  const char* why_ = "";
};

}  // namespace qshard::test
