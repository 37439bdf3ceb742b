#pragma once

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/device_weight4bit.h"

namespace qshard::optimized {

/// Rebuilds a weight: codebook[code] * absmax in float (subnormal products flushed to zero), rounded once to `dtype`
/// (f32, f16 or bf16). Nested absmax is decoded in the same launch: map[code] * nested_absmax (rounded), then + offset
/// (rounded). Equal to the bit to reference::dequantize and to bitsandbytes' dequantize_4bit.
///
/// out: weight.elements values of `dtype`, aligned to 16 bytes. Moves 2.516 bytes an element (16-bit output, nested
/// blocks of 64). One launch on `stream`; nothing is allocated and nothing synchronized. Deterministic. Throws
/// Error(bad_input) as check_weight() does, for a non-floating dtype and a null or unaligned `out`; Error(rank_failed)
/// when the launch fails.
void dequantize(const DeviceWeight4bit& weight, DType dtype, void* out, cudaStream_t stream);

}  // namespace qshard::optimized
