#pragma once

#include <cstdint>

#include "core/tensor/weight4bit.h"

namespace qshard::optimized {

/// A 4-bit weight in device memory, as kernels take it: core's Weight4bitView with plain pointers. Either `absmax` is
/// set, or, where absmax itself is quantized (nested), the four pointers after it. All of them must be aligned to 16
/// bytes except `offset` (4 bytes) and, when nested, `absmax_codes` and `nested_absmax` (their element's size).
struct DeviceWeight4bit {
  QuantType quant_type = QuantType::nf4;
  int blocksize = 64;
  std::int64_t elements = 0;
  const std::uint8_t* codes = nullptr;         // ceil(elements / 2) bytes, first element in the high nibble
  const float* absmax = nullptr;               // ceil(elements / blocksize)
  const std::uint8_t* absmax_codes = nullptr;  // nested: ceil(elements / blocksize)
  const float* nested_absmax = nullptr;        // nested: one for each 256 absmax codes
  const float* nested_map = nullptr;           // nested: 256 values
  const float* offset = nullptr;               // nested: one value
  bool resident = false;                       // written long ago: a kernel may read it before earlier ones are done

  [[nodiscard]] bool nested() const { return absmax == nullptr; }
};

/// Throws Error(bad_input) that says what is wrong: an unsupported block size, no elements, a null or unaligned
/// pointer.
void check_weight(const DeviceWeight4bit& weight);

}  // namespace qshard::optimized
