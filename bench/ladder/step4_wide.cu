// Step 4: one thread four bytes of codes, eight values, one 16-byte store, the widest there is: a quarter of the memory
// instructions and scales.
#include "bench/ladder/ladder.cuh"

namespace qshard::bench::ladder {
namespace {

__global__ void kernel(const __grid_constant__ Arguments a) {
  __shared__ float table[16];
  load_table(table, a.codebook);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const float absmax = decode_absmax(a, 8 * i >> a.blocksize_log2);
  const std::uint32_t codes = reinterpret_cast<const std::uint32_t*>(a.codes)[i];
  reinterpret_cast<uint4*>(a.out)[i] = decode_word(table, codes, absmax);
}

}  // namespace

void step4_wide(const Arguments& arguments, cudaStream_t stream) {
  launch(kernel, arguments, 8, stream);
}

}  // namespace qshard::bench::ladder
