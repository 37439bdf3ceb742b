#pragma once

#include <string>
#include <vector>

#include "bench/gpu/step_kernel.h"
#include "core/tensor/dtype.h"

namespace qshard::bench {

/// Rows of "adapted_product" (y = x W^T + s h B^T) or "adapted_product_backward" (dx = dy W + mask(g A)): the linear
/// layers of Llama-2-70B over 2048 tokens with adapters of rank 64, each with the adapter in the product, in an update
/// of its own, and without any; none where the product's kernel takes no adapter on this GPU, or in f32. Bytes and
/// FLOPs are those of the product with its adapter.
std::vector<StepKernel> adapted_product_rows(const std::string& operation, DType dtype);

}  // namespace qshard::bench
