#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

namespace qshard::optimized::many_rows {

/// Sets `count` counts of four bytes to zero before the next kernel of the stream, which may be launched early, goes
/// on. A kernel of its own, since a memset lets no kernel start before the one in front of it has ended.
void clear_counts(void* counts, std::size_t count, cudaStream_t stream);

}  // namespace qshard::optimized::many_rows
