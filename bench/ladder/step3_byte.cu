// Step 3: one thread a byte. Each byte is loaded once instead of twice, its scale decoded once for two values, and both
// are stored together: half the instructions a value.
#include "bench/ladder/ladder.cuh"

namespace qshard::bench::ladder {
namespace {

__global__ void kernel(const __grid_constant__ Arguments a) {
  __shared__ float table[16];
  load_table(table, a.codebook);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const float absmax = decode_absmax(a, 2 * i >> a.blocksize_log2);
  reinterpret_cast<std::uint32_t*>(a.out)[i] = decode_byte(table, a.codes[i], absmax);
}

}  // namespace

void step3_byte(const Arguments& arguments, cudaStream_t stream) {
  launch(kernel, arguments, 2, stream);
}

}  // namespace qshard::bench::ladder
