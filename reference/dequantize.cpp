#include "reference/dequantize.h"

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/error.h"
#include "core/tensor/float16.h"
#include "reference/double_quant.h"
#include "reference/flush_to_zero.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kPieceElements = 1 << 14;  // what a thread takes at once

// The GPU's multiplication gives this NaN and no other.
float canonical(float value) {
  return std::isnan(value) ? std::bit_cast<float>(0x7FFFFFFFU) : value;
}

// Within a block a code can only become one of 16 values, so that the arithmetic is done 16 times a block.
// `round` turns the exact float product into the element that is stored.
template <typename T, typename Round>
std::array<T, 16> block_values(QuantType type, float absmax, const Round& round) {
  std::array<T, 16> values;
  for (std::size_t code = 0; code < 16; ++code) {
    values[code] = round(canonical(multiply_flushed(codebook(type)[code], absmax)));
  }
  return values;
}

template <typename T>
void expand_block(const std::array<T, 16>& values, const std::uint8_t* packed, std::size_t count, std::byte* out) {
  for (std::size_t j = 0; j < count / 2; ++j) {
    const std::array<T, 2> pair{values[packed[j] >> 4], values[packed[j] & 15U]};
    std::memcpy(out + j * sizeof(pair), &pair, sizeof(pair));
  }
  if (count % 2 == 1) std::memcpy(out + (count - 1) * sizeof(T), &values[packed[count / 2] >> 4], sizeof(T));
}

template <typename T, typename Round>
void expand(const Weight4bitView& weight, std::byte* out, const Round& round) {
  const std::vector<float> absmax = decode_absmax(weight);
  const auto elements = static_cast<std::size_t>(element_count(weight.info->shape));
  const auto step = static_cast<std::size_t>(weight.info->blocksize);
  parallel_for(std::ssize(absmax), kPieceElements / weight.info->blocksize, [&](std::int64_t begin, std::int64_t end) {
    for (auto block = static_cast<std::size_t>(begin); block < static_cast<std::size_t>(end); ++block) {
      const std::size_t first = block * step;
      const auto values = block_values<T>(weight.info->quant_type, absmax[block], round);
      expand_block(values, weight.codes.data() + first / 2, std::min(step, elements - first), out + first * sizeof(T));
    }
  });
}

template <typename T>
void expand_as(const Weight4bitView& weight, std::byte* out) {
  expand<T>(weight, out, [](float value) { return from_float<T>(value); });
}

template <typename T>
void expand_rounded(const Weight4bitView& weight, std::span<float> out) {
  expand<float>(weight, std::as_writable_bytes(out).data(), [](float value) { return to_float(from_float<T>(value)); });
}

void check(const Weight4bitView& weight, DType dtype, std::size_t room, std::size_t element_size) {
  if (!is_floating(dtype)) {
    fail_input("a 4-bit weight can be dequantized to float32, float16 or bfloat16, not {}", torch_name(dtype));
  }
  check_consistent(weight, "4-bit weight");
  const std::int64_t elements = element_count(weight.info->shape);
  if (room != static_cast<std::size_t>(elements) * element_size) {
    fail_input("a 4-bit weight of shape {} dequantizes into {} bytes, not {}", to_string(weight.info->shape),
               static_cast<std::size_t>(elements) * element_size, room);
  }
}

}  // namespace

void dequantize(const Weight4bitView& weight, DType dtype, std::span<std::byte> out) {
  check(weight, dtype, out.size(), size_of(dtype));
  if (dtype == DType::f32) return expand_as<float>(weight, out.data());
  if (dtype == DType::bf16) return expand_as<bfloat16>(weight, out.data());
  expand_as<float16>(weight, out.data());
}

Tensor dequantize(const Weight4bitView& weight, DType dtype) {
  Tensor tensor(dtype, weight.info->shape);
  dequantize(weight, dtype, tensor.bytes());
  return tensor;
}

void dequantize_rounded(const Weight4bitView& weight, DType rounding, std::span<float> out) {
  check(weight, rounding, out.size_bytes(), sizeof(float));
  if (rounding == DType::f32) return expand_rounded<float>(weight, out);
  if (rounding == DType::bf16) return expand_rounded<bfloat16>(weight, out);
  expand_rounded<float16>(weight, out);
}

}  // namespace qshard::reference
