#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Elements that one thread block of the quantize kernel handles; a multiple of every block size.
inline constexpr std::int64_t kQuantizeTile = 8192;

/// quantize() of quantize.h that also writes the sum of each tile's absmax, ceil(elements / kQuantizeTile) floats, to
/// `tile_sums` unless that is null: what nested quantization computes its offset from. The next kernel may then begin
/// early: it must not let the one after it begin before it has waited.
void quantize_tiles(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
                    std::uint8_t* codes, float* absmax, float* tile_sums, cudaStream_t stream);

}  // namespace qshard::optimized
