#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// Both products by Hopper's warpgroup matrix instructions: a thread block dequantizes its part of the weight, to the
// bits of dequantize(), for all columns of a tile, to shared memory, from where the instructions read it, or for some
// tiles warps load it to registers; the two thread blocks of a cluster share the input. Deterministic: sums of clusters
// that share a tile are added in a fixed order.
namespace qshard::optimized::wide {

/// As cluster::supports().
bool supports(const Linear4bitProblem& problem);

/// Whether it is expected to be faster than the rows of the table after it.
bool pays(const Linear4bitProblem& problem);

/// Partial sums of shared tiles.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

}  // namespace qshard::optimized::wide
