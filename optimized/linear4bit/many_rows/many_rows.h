#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// Both products in one kernel of Hopper's warpgroup matrix instructions and tensor memory accelerator: some warps
// dequantize the weight to the workspace, to the bits of dequantize(), while the others multiply what is dequantized
// already. An adapter is a few more steps along the inner dimension, before the weight's. Deterministic: each element
// of the output is one sum, in a fixed order.
namespace qshard::optimized::many_rows {

/// A Hopper GPU, f16 or bf16, blocks of 64 or more, sizes below 2^30.
bool supports(const Linear4bitProblem& problem);

/// Whether it is expected to be faster than dequantizing the weight first.
bool pays(const Linear4bitProblem& problem);

/// The dequantized weight at the start, then counts.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

/// Every adapter whose matrices the tensor memory accelerator takes: aligned to 16 bytes, rows of a multiple of 8
/// elements.
bool adds(const Linear4bitProblem& problem, const Linear4bitAddends& addends);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

}  // namespace qshard::optimized::many_rows
