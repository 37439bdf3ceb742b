#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// The forward product of 1 to kMostFusedRows rows by Hopper's warpgroup matrix instructions, in two launches: x is laid
// out for them first.
namespace qshard::optimized::warpgroup {

/// A Hopper GPU, blocks of 64 or more, out_features below 2^30.
bool supports(const Linear4bitProblem& problem);

/// Whether it is expected to be faster than the rows of the table after it.
bool pays(const Linear4bitProblem& problem);

/// x as it is laid out, partial sums and their counts.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

/// Two or three products of one input in one launch, behind the one that lays it out: see
/// Linear4bitKernel::run_together.
bool run_together(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls,
                  std::size_t available);

}  // namespace qshard::optimized::warpgroup
