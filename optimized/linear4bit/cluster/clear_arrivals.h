#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

namespace qshard::optimized::cluster {

/// Sets `count` counts of arrivals to zero before the next kernel of the stream, which may be launched early, goes on.
void clear_arrivals(int* arrivals, std::size_t count, cudaStream_t stream);

}  // namespace qshard::optimized::cluster
