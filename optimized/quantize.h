#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Quantizes `elements` values of `dtype` (f32, f16, bf16; flattened row-major) to 4 bits, equal to the bit to
/// reference::quantize with the GPU's reciprocal and to bitsandbytes. Per block of `blocksize` elements: absmax = max
/// |x|, code = the codebook interval that x * (1 / absmax) falls into; two codes a byte, the first in the high nibble.
/// The unused nibble of an odd tail is the code of 0, as in bitsandbytes.
///
/// weight: device memory, aligned to 16 bytes. codes: ceil(elements / 2) bytes, aligned to 4. absmax: ceil(elements /
/// blocksize) floats. Reads the weight once and writes codes and absmax once: 2.5625 bytes an element for 16-bit input
/// and blocks of 64. One launch on `stream`; nothing is allocated and nothing synchronized. Deterministic.
/// Throws Error(bad_input) for a non-floating dtype, elements < 1, an unsupported block size, a null or unaligned
/// pointer; Error(rank_failed) when the launch fails.
void quantize(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
              std::uint8_t* codes, float* absmax, cudaStream_t stream);

}  // namespace qshard::optimized
