#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/dtype.h"

namespace qshard {

using Shape = std::vector<std::int64_t>;

/// Number of elements: the product of the sizes, 1 for a scalar.
std::int64_t element_count(const Shape& shape);

/// "[2, 3]", for messages.
std::string to_string(const Shape& shape);

/// A dense row-major tensor in somebody else's memory (a mapped file, a shard, a Tensor). Cheap to copy but for the
/// shape. `bytes` is element_count(shape) * size_of(dtype) long; nothing is promised about its alignment.
struct TensorView {
  DType dtype = DType::u8;
  Shape shape;
  std::span<const std::byte> bytes;
};

/// A dense row-major tensor that owns its memory, aligned for any dtype and zero-filled when made.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);
  explicit Tensor(const TensorView& view);

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] std::span<std::byte> bytes() { return bytes_; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] TensorView view() const { return {dtype_, shape_, bytes_}; }

  /// The elements as T; sizeof(T) must be size_of(dtype()). The caller names the type that belongs to the dtype.
  template <typename T>
  [[nodiscard]] std::span<T> as() {
    return {reinterpret_cast<T*>(bytes_.data()), bytes_.size() / sizeof(T)};
  }
  template <typename T>
  [[nodiscard]] std::span<const T> as() const {
    return {reinterpret_cast<const T*>(bytes_.data()), bytes_.size() / sizeof(T)};
  }

 private:
  DType dtype_ = DType::u8;
  Shape shape_{0};
  std::vector<std::byte> bytes_;
};

/// Tensors by name, whole (not sharded).
using NamedTensors = std::map<std::string, Tensor>;

/// A floating tensor's elements as float (exact). Throws Error(bad_input) for an integer dtype.
std::vector<float> to_floats(const TensorView& tensor);

/// Rounds floats to `dtype` (f16, bf16 or f32; nearest, ties to even). values.size() must fit `shape`.
Tensor from_floats(std::span<const float> values, DType dtype, const Shape& shape);

}  // namespace qshard
