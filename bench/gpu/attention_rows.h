#pragma once

#include <string>
#include <vector>

#include "bench/gpu/step_kernel.h"
#include "core/tensor/dtype.h"

namespace qshard::bench {

/// "attention" or "attention_backward" of one row of 512 to 8192 tokens with Llama-2-70B's heads: a row for every
/// kernel of attention's table that takes it on this GPU. FLOPs are those of the causal half: 2 products of [tokens,
/// head_dim] by [head_dim, tokens] forward and 5 backward; what a kernel computes twice does not count.
std::vector<StepKernel> attention_rows(const std::string& operation, DType dtype);

}  // namespace qshard::bench
