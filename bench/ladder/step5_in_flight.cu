// Step 5: four such pieces a thread, all their loads issued before the first is used, so that their waits overlap;
// loads and stores marked as used once, so that they do not push each other out of the L2 cache.
#include "bench/ladder/ladder.cuh"

namespace qshard::bench::ladder {
namespace {

constexpr int kPieces = 4;

__global__ void kernel(const __grid_constant__ Arguments a) {
  __shared__ float table[16];
  load_table(table, a.codebook);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads * kPieces + threadIdx.x;
  std::uint32_t codes[kPieces];
  float absmax[kPieces];
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const std::int64_t i = first + piece * kThreads;
    codes[piece] = __ldcs(reinterpret_cast<const std::uint32_t*>(a.codes) + i);
    absmax[piece] = decode_absmax(a, 8 * i >> a.blocksize_log2);
  }
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const std::int64_t i = first + piece * kThreads;
    __stcs(reinterpret_cast<uint4*>(a.out) + i, decode_word(table, codes[piece], absmax[piece]));
  }
}

}  // namespace

void step5_in_flight(const Arguments& arguments, cudaStream_t stream) {
  launch(kernel, arguments, 8 * kPieces, stream);
}

}  // namespace qshard::bench::ladder
