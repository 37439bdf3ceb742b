#include "core/tensor/tensor.h"

#include <cstring>
#include <utility>

#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/tensor/float16.h"

namespace qshard {
namespace {

template <typename T>
void widen(std::span<const std::byte> from, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from.data() + i * sizeof(T), sizeof(T));
    to[i] = to_float(value);
  }
}

template <typename T>
void narrow(std::span<const float> from, std::span<T> to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = from_float<T>(from[i]);
}

}  // namespace

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype),
      shape_(std::move(shape)),
      bytes_(static_cast<std::size_t>(element_count(shape_)) * size_of(dtype)) {}

Tensor::Tensor(const TensorView& view)
    : dtype_(view.dtype), shape_(view.shape), bytes_(view.bytes.begin(), view.bytes.end()) {}

std::vector<float> to_floats(const TensorView& tensor) {
  std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape)));
  switch (tensor.dtype) {
    case DType::f32:
      widen<float>(tensor.bytes, values);
      return values;
    case DType::bf16:
      widen<bfloat16>(tensor.bytes, values);
      return values;
    case DType::f16:
      widen<float16>(tensor.bytes, values);
      return values;
    default:
      fail_input("a {} tensor of shape {} stands where floating-point values are needed", torch_name(tensor.dtype),
                 to_string(tensor.shape));
  }
}

Tensor from_floats(std::span<const float> values, DType dtype, const Shape& shape) {
  Tensor tensor(dtype, shape);
  switch (dtype) {
    case DType::f32:
      narrow<float>(values, tensor.as<float>());
      return tensor;
    case DType::bf16:
      narrow<bfloat16>(values, tensor.as<bfloat16>());
      return tensor;
    case DType::f16:
      narrow<float16>(values, tensor.as<float16>());
      return tensor;
    default:
      fail_input("floating-point values cannot be stored as {}", torch_name(dtype));
  }
}

}  // namespace qshard
