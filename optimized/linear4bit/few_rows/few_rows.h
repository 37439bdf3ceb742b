#pragma once

#include <span>

#include "optimized/linear4bit/linear4bit_kernels.h"

// The forward product of 1 to 4 rows at the speed of reading the packed weight, in one launch without a workspace.
namespace qshard::optimized::few_rows {

/// Blocks of 64 or more, and 72 KiB of shared memory a thread block.
bool supports(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

/// The same with the weight copied by the tensor memory accelerator: besides, a Hopper GPU and out_features below 2^30.
bool tma_supports(const Linear4bitProblem& problem);

/// The launch may begin while the stream's earlier kernel ends: before that it reads nothing but a resident weight, and
/// asks the L2 cache for x, which it reads afterwards.
void tma_run(const Linear4bitProblem& problem, const Linear4bitCall& call);

/// Two or three products of one input in one launch: see Linear4bitKernel::run_together.
bool tma_run_together(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls,
                      std::size_t available);

}  // namespace qshard::optimized::few_rows
