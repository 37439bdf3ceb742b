// Step 2: the codebook in shared memory. Constant memory serves one address a cycle, so 32 different codes take up to
// 16 turns; in shared memory the 16 values lie in 16 banks and are all served at once.
#include "bench/ladder/ladder.cuh"

namespace qshard::bench::ladder {
namespace {

__global__ void kernel(const __grid_constant__ Arguments a) {
  __shared__ float table[16];
  load_table(table, a.codebook);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const unsigned byte = a.codes[i / 2];
  const unsigned code = i % 2 == 0 ? byte >> 4 : byte & 15;
  a.out[i] = decode_value(table[code], decode_absmax(a, i >> a.blocksize_log2));
}

}  // namespace

void step2_shared_table(const Arguments& arguments, cudaStream_t stream) {
  launch(kernel, arguments, 1, stream);
}

}  // namespace qshard::bench::ladder
