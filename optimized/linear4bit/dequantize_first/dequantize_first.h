#pragma once

#include <cstddef>

#include "optimized/linear4bit/linear4bit_kernels.h"

// The product by two steps: dequantize() writes the weight to the workspace, then cuBLASLt multiplies it. Takes every
// problem on every GPU; the only kernel for f32, and for an in_features that is no multiple of the block size.
namespace qshard::optimized::dequantize_first {

/// cuBLASLt's workspace, then the dequantized weight.
std::size_t workspace_bytes(const Linear4bitProblem& problem);

void run(const Linear4bitProblem& problem, const Linear4bitCall& call);

}  // namespace qshard::optimized::dequantize_first
