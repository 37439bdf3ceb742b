#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// Both products by Hopper's warpgroup matrix instructions, which take the weight from registers, where it is
// dequantized to the bits of dequantize(): the weight is read once for each 256 rows of the input, as 4-bit codes.
// Deterministic: sums of thread blocks that share a tile are added in a fixed order.
namespace qshard::optimized::wide {

/// A Hopper GPU, f16 or bf16, blocks of 64 or more, sizes below 2^30.
bool supports(const Linear4bitProblem& problem);

/// Whether it is expected to be faster than the rows of the table after it.
bool pays(const Linear4bitProblem& problem);

/// Partial sums and their counts.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

}  // namespace qshard::optimized::wide
