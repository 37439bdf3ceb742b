#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor/tensor.h"
#include "core/tensor/tensor_source.h"
#include "core/tensor/weight4bit.h"

namespace qshard {

/// The keys of a bitsandbytes 4-bit weight called `name` ("model.layers.0.mlp.up_proj.weight"):
///   name                                 packed codes, [bytes / size_of(storage), 1] of the storage dtype
///   name.absmax                          F32, or U8 where nested: one value a block
///   name.quant_map                       F32 [16]: the codebook
///   name.nested_absmax                   F32: one value for each 256 of absmax          (where nested)
///   name.nested_quant_map                F32 [256]                                      (where nested)
///   name.quant_state.bitsandbytes__nf4   U8: JSON with quant_type, blocksize, dtype, shape, and where nested
///     (or __fp4)                         nested_blocksize, nested_dtype, nested_offset

/// True where any of the keys above besides `name` itself is there.
bool has_weight4bit(const TensorSource& source, std::string_view name);

/// Reads a weight as it is, to the bit; storage is the dtype of its packed codes. Checks everything against everything
/// else. With nested_dtype bfloat16 bitsandbytes rounds map value times nested_absmax to bf16, and that plus the offset
/// again; such a weight comes back without nesting, with those absmax values. Throws Error(bad_input) that names the
/// file and the tensor, also for a layer that bitsandbytes repacked for a CPU.
Weight4bit read_weight4bit(const TensorSource& source, std::string_view name);

/// The info of such a weight alone, from its quant_state, its nested_quant_map and its storage dtype; codes, scales and
/// quant_map are not read. Throws Error(bad_input) as read_weight4bit for what it reads.
Weight4bitInfo read_weight4bit_info(const TensorSource& source, std::string_view name);

/// Appends to `tensors` those of `weight`, for write_safetensors, with bitsandbytes' own bytes. They look into `weight`
/// and into what is appended to `kept`; both must outlive them. Throws Error(bad_input) where the storage dtype cannot
/// hold the packed codes whole.
void append_weight4bit(const std::string& name, const Weight4bitView& weight,
                       std::vector<std::pair<std::string, TensorView>>& tensors, std::vector<Tensor>& kept);

/// The JSON text under quant_state, as Python's json.dumps gives it.
std::string quant_state_text(const Weight4bitInfo& info);

/// Reads it back: everything of Weight4bitInfo but `storage` and `nested_map`. `where` names file and tensor. Throws
/// Error(bad_input), also for an unsupported block size, an empty shape or one whose size overflows, and for another
/// nested_dtype than float32.
Weight4bitInfo parse_quant_state(std::string_view text, std::string_view where);

}  // namespace qshard
