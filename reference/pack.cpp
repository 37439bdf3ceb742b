#include "reference/pack.h"

#include <cstring>
#include <utility>

#include "core/base/error.h"

namespace qshard::reference {
namespace {

void check_dtype(const TensorView& part, DType expected, std::string_view part_name, std::string_view name) {
  if (part.dtype != expected) {
    fail_input("{}: {} is stored as {}, but must be {}", name, part_name, torch_name(part.dtype), torch_name(expected));
  }
}

template <typename T>
std::vector<T> copy_of(const TensorView& part, std::string_view part_name, std::string_view name) {
  if (part.bytes.size() != static_cast<std::size_t>(element_count(part.shape)) * size_of(part.dtype)) {
    fail_input("{}: {} has {} bytes, which do not hold a {} tensor of shape {}", name, part_name, part.bytes.size(),
               torch_name(part.dtype), to_string(part.shape));
  }
  std::vector<T> values(part.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), part.bytes.data(), part.bytes.size());
  return values;
}

void check_storage(const Weight4bitInfo& info, const StoredWeight4bit& stored, std::string_view name) {
  if (info.storage != DType::u8 && !is_floating(info.storage)) {
    fail_input("{}: packed data is stored as {}; known: uint8, float16, bfloat16, float32", name,
               torch_name(info.storage));
  }
  if (!is_floating(info.dtype)) {
    fail_input("{}: the dtype before quantization is {}; it can be float32, float16 or bfloat16", name,
               torch_name(info.dtype));
  }
  if (info.nested != stored.nested_absmax.has_value()) {
    fail_input("{}: its metadata says that absmax is {}nested, but nested_absmax is {}", name,
               info.nested ? "" : "not ", stored.nested_absmax ? "there" : "missing");
  }
}

}  // namespace

TensorView storage_view(const Weight4bitView& weight, std::string_view name) {
  const Weight4bitInfo& info = *weight.info;
  return {info.storage, storage_shape(element_count(info.shape), info.storage, name), std::as_bytes(weight.codes)};
}

std::span<const std::uint8_t> packed_bytes_of(const TensorView& stored) {
  return {reinterpret_cast<const std::uint8_t*>(stored.bytes.data()), stored.bytes.size()};
}

Weight4bit rebuild(Weight4bitInfo info, const StoredWeight4bit& stored, std::string_view name) {
  info.storage = stored.packed.dtype;
  check_storage(info, stored, name);
  Weight4bit weight;
  weight.info = std::move(info);
  weight.codes = copy_of<std::uint8_t>(stored.packed, "packed data", name);
  if (weight.info.nested) {
    check_dtype(stored.absmax, DType::u8, "nested absmax", name);
    check_dtype(*stored.nested_absmax, DType::f32, "nested_absmax", name);
    weight.absmax_codes = copy_of<std::uint8_t>(stored.absmax, "absmax", name);
    weight.nested_absmax = copy_of<float>(*stored.nested_absmax, "nested_absmax", name);
  } else {
    check_dtype(stored.absmax, DType::f32, "absmax", name);
    weight.absmax = copy_of<float>(stored.absmax, "absmax", name);
  }
  check_consistent(weight.view(), name);
  return weight;
}

}  // namespace qshard::reference
