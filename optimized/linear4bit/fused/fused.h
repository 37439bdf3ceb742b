#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// The forward product of 1 to kMostFusedRows rows on every GPU, with mma.sync and plain loads.
namespace qshard::optimized::fused {

/// Every problem with can_fuse().
bool supports(const Linear4bitProblem& problem);

/// More than 48 rows, of small weights more than 16, are faster dequantized first: this kernel reads x again for every
/// 32 weight rows. Measured on an H200 without its own kernels.
bool pays(const Linear4bitProblem& problem);

/// Partial sums; 0 where one pass needs none.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

}  // namespace qshard::optimized::fused
