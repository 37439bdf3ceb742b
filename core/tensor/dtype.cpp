#include "core/tensor/dtype.h"

#include <array>

#include "core/base/error.h"

namespace qshard {
namespace {

struct Names {
  DType dtype;
  std::size_t size;
  std::string_view safetensors;
  std::string_view torch;
};

constexpr std::array<Names, 6> kNames{{{DType::u8, 1, "U8", "uint8"},
                                       {DType::i32, 4, "I32", "int32"},
                                       {DType::i64, 8, "I64", "int64"},
                                       {DType::f16, 2, "F16", "float16"},
                                       {DType::bf16, 2, "BF16", "bfloat16"},
                                       {DType::f32, 4, "F32", "float32"}}};

const Names& names_of(DType dtype) {
  return kNames[static_cast<std::size_t>(dtype)];
}

}  // namespace

std::size_t size_of(DType dtype) {
  return names_of(dtype).size;
}

bool is_floating(DType dtype) {
  return dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32;
}

std::string_view safetensors_name(DType dtype) {
  return names_of(dtype).safetensors;
}

std::string_view torch_name(DType dtype) {
  return names_of(dtype).torch;
}

DType parse_torch_name(std::string_view name, std::string_view where) {
  for (const Names& entry : kNames) {
    if (entry.torch == name) return entry.dtype;
  }
  fail_input("{}: unknown dtype \"{}\"; known: uint8, int32, int64, float16, bfloat16, float32", where, name);
}

}  // namespace qshard
