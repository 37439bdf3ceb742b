// Step 1: one thread a value, as the formula reads. The codebook is a kernel parameter, that is constant memory.
#include "bench/ladder/ladder.cuh"

namespace qshard::bench::ladder {
namespace {

__global__ void kernel(const __grid_constant__ Arguments a) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const unsigned byte = a.codes[i / 2];
  const unsigned code = i % 2 == 0 ? byte >> 4 : byte & 15;
  a.out[i] = decode_value(a.codebook.values[code], decode_absmax(a, i >> a.blocksize_log2));
}

}  // namespace

void step1_naive(const Arguments& arguments, cudaStream_t stream) {
  launch(kernel, arguments, 1, stream);
}

}  // namespace qshard::bench::ladder
