#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

struct SwigluShape {
  std::int64_t tokens = 0;
  std::int64_t size = 0;         // elements a token: the intermediate size
  std::int64_t gate_stride = 0;  // elements from one token to the next
  std::int64_t up_stride = 0;
  std::int64_t out_stride = 0;
  DType dtype = DType::bf16;  // of everything: f32, f16 or bf16
};

/// The gated unit of Llama's feed-forward block (arXiv 2002.05202):
///   out = round(round(silu(gate)) * up),  silu(g) = g s(g),  s(g) = 1 / (1 + exp(-g)),
/// as reference::swiglu_forward, arithmetic in float. exp and the division are accurate to their last bits in f32; for
/// 16-bit dtypes they are the hardware's approximations, a relative error of s below 2^-20, far below the rounding.
/// out may be gate or up where the strides are equal.
///
/// Pointers are aligned to the element; accesses take 16 bytes at once where pointers, size and strides allow. Moves
/// two reads and one write. One launch on `stream`, none for 0 tokens; nothing is allocated and nothing synchronized.
/// Deterministic: elementwise. Throws Error(bad_input) for bad sizes, strides, dtypes or pointers; Error(rank_failed)
/// when the launch fails.
void swiglu_forward(const SwigluShape& shape, const void* gate, const void* up, void* out, cudaStream_t stream);

/// dup = round(dout round(silu(gate))),  dgate = round(round(dout up) s(gate) (1 + gate (1 - s(gate)))).
/// dgate has gate_stride and may be gate, dup has up_stride and may be up; dout has out_stride. out: the bits that
/// swiglu_forward() makes, has out_stride and may be dout; null: not wanted. Moves three reads and two writes, three
/// with out. The rest as swiglu_forward.
void swiglu_backward(const SwigluShape& shape, const void* gate, const void* up, const void* dout, void* dgate,
                     void* dup, void* out, cudaStream_t stream);

}  // namespace qshard::optimized
