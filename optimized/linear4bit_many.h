#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "optimized/linear4bit.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

/// Whether linear4bit_many() takes the product on the current device: a Hopper GPU, f16 or bf16, blocks of 64 or more,
/// row strides that are multiples of 8, and sizes below 2^30.
bool many_rows_takes(const Linear4bit& layer, const MatmulShape& shape);

/// Whether it was measured to be faster than dequantizing the weight first, for a product that it takes.
bool many_rows_pays(const MatmulShape& shape);

/// Device memory that linear4bit_many() needs, in bytes.
std::size_t many_rows_workspace_bytes(const Linear4bit& layer);

/// linear4bit() (shape.b_transposed) or linear4bit_input_gradient() with the weight dequantized in registers, to the
/// bits of dequantize(), and never written: Hopper's copy engine, clusters and warpgroup matrix instructions. `in` and
/// `out` aligned to 16 bytes. Two launches: the scales are decoded first. The arguments are checked by linear4bit().
void linear4bit_many(const Linear4bit& layer, const MatmulShape& shape, const void* in, void* out, void* workspace,
                     cudaStream_t stream);

}  // namespace qshard::optimized
