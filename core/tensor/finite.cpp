#include "core/tensor/finite.h"

#include <cstdint>
#include <cstring>

#include "core/base/error.h"

namespace qshard {

namespace {

// All bits of the exponent are set in NaN and in infinity, and in no other value.
template <typename Bits>
bool is_finite(std::span<const std::byte> bytes, Bits exponent) {
  bool found = false;
  for (std::size_t at = 0; at + sizeof exponent <= bytes.size(); at += sizeof exponent) {
    Bits element;
    std::memcpy(&element, bytes.data() + at, sizeof element);
    found |= (element & exponent) == exponent;
  }
  return !found;
}

bool is_finite(const TensorView& tensor) {
  switch (tensor.dtype) {
    case DType::f32:
      return is_finite<std::uint32_t>(tensor.bytes, 0x7F800000U);
    case DType::bf16:
      return is_finite<std::uint16_t>(tensor.bytes, 0x7F80U);
    case DType::f16:
      return is_finite<std::uint16_t>(tensor.bytes, 0x7C00U);
    default:
      return true;
  }
}

}  // namespace

void check_finite(const TensorView& weight, std::string_view name) {
  if (!is_finite(weight)) fail_input("{}: not every value is a finite number; the weights are damaged", name);
}

}  // namespace qshard
