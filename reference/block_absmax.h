#pragma once

#include <span>

namespace qshard::reference {

/// Scale of one block: max |x| over its elements as bitsandbytes' CUDA kernels compute it. NaN is ignored and
/// subnormals count as zero. A block shorter than `blocksize` (the last one) is padded with zeros. What is left when a
/// whole block is NaN is the kernels' starting value, -FLT_MAX.
float block_absmax(std::span<const float> block, int blocksize);

}  // namespace qshard::reference
