#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/tensor/weight4bit.h"

namespace qshard::reference {

// Packed 4-bit codes travel as elements of quant_storage (bf16, for example, so that FSDP can flatten them together
// with bf16 parameters). The elements are never used as numbers: among them are NaN patterns that a copy through
// floating-point registers may change. All functions here move bytes.
//
// Quantize once: a weight that was quantized is only ever rebuilt from its parts; no move, load or save goes through
// quantize() again, and none of the functions here changes a bit.

/// The packed bytes as a tensor [bytes / size_of(storage), 1] of info.storage, in the weight's own memory: no copy.
/// Throws Error(bad_input) naming `name` where the storage dtype cannot hold them whole.
TensorView storage_view(const Weight4bitView& weight, std::string_view name);

/// The inverse: the bytes of a tensor of any dtype, in its own memory.
std::span<const std::uint8_t> packed_bytes_of(const TensorView& stored);

/// The tensors that a checkpoint or a gathered shard holds of one weight.
struct StoredWeight4bit {
  TensorView packed;                        // [.., 1] of the storage dtype: u8, f16, bf16 or f32
  TensorView absmax;                        // [blocks] f32; u8 when nested
  std::optional<TensorView> nested_absmax;  // [ceil(blocks / 256)] f32; present when nested
};

/// Rebuilds a weight from its stored tensors and its metadata, bit for bit; info.storage becomes the dtype of
/// `stored.packed`. Copies each part once. Throws Error(bad_input), naming `name` and the part, for a dtype that the
/// part cannot have, nesting that info and parts disagree on, an unsupported block size, or sizes that do not fit
/// info.shape and each other.
Weight4bit rebuild(Weight4bitInfo info, const StoredWeight4bit& stored, std::string_view name);

}  // namespace qshard::reference
