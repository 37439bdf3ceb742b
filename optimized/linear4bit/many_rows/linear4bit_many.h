#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "optimized/linear4bit/linear4bit.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

/// Whether linear4bit_many() takes the product on the current device: a Hopper GPU, f16 or bf16, blocks of 64 or more,
/// row strides that are multiples of 8, sizes below 2^30, and a weight of less than 2^39 elements.
bool many_rows_takes(const Linear4bit& layer, const MatmulShape& shape);

/// Whether it is expected to be faster than dequantizing the weight first, for a product that it takes.
bool many_rows_pays(const MatmulShape& shape);

/// linear4bit() (shape.b_transposed) or linear4bit_input_gradient() in one kernel of Hopper's warpgroup matrix
/// instructions and copies: some warps dequantize the weight, to the bits of dequantize(), while the others multiply
/// what is dequantized already. `in` and `out` aligned to 16 bytes; workspace: linear4bit_workspace_bytes(). The
/// arguments are checked by linear4bit(). Deterministic: each element of the output is one sum, in a fixed order.
void linear4bit_many(const Linear4bit& layer, const MatmulShape& shape, const void* in, void* out, void* workspace,
                     cudaStream_t stream);

}  // namespace qshard::optimized
