#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

namespace qshard::test {

/// When a copy begins that is launched early and lets the stream's next kernel begin at once.
enum class CopyTime {
  late,       // some 100 us after the earlier kernels' end
  in_order,   // after their end
  too_early,  // before it, as no kernel should
};

/// Copies `bytes`, a multiple of 16, between device memory by few thread blocks: the next kernel finds room beside it.
void launch_copy(const void* from, void* to, std::size_t bytes, CopyTime time, cudaStream_t stream);

}  // namespace qshard::test
