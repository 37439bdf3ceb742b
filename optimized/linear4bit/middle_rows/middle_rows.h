#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// Both products by Hopper's warpgroup matrix instructions, both of whose operands are in shared memory: two thread
// blocks, a cluster, multiply the same part of the weight by different rows of the input, each dequantizes half of it,
// to the bits of dequantize(), and copies that to the other one. Deterministic: sums of clusters that share a tile are
// added in a fixed order.
namespace qshard::optimized::middle_rows {

/// As cluster::supports().
bool supports(const Linear4bitProblem& problem);

/// Whether it is expected to be faster than the rows of the table after it.
bool pays(const Linear4bitProblem& problem);

/// Partial sums of shared tiles.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

}  // namespace qshard::optimized::middle_rows
