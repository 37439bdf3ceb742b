#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace qshard {

/// Element types of tensors in memory and in files.
enum class DType : std::uint8_t { u8, i32, i64, f16, bf16, f32 };

/// Bytes an element takes.
std::size_t size_of(DType dtype);

/// True for f16, bf16 and f32.
bool is_floating(DType dtype);

/// "U8", "I32", "I64", "F16", "BF16", "F32": the name in a safetensors header.
std::string_view safetensors_name(DType dtype);

/// "uint8", "int32", "int64", "float16", "bfloat16", "float32": the name in PyTorch and Hugging Face configurations.
std::string_view torch_name(DType dtype);

/// The inverse of torch_name; `where` names the file and key in the error for anything else. Throws Error(bad_input).
DType parse_torch_name(std::string_view name, std::string_view where);

}  // namespace qshard
