#include <algorithm>

#include "bench/shard_layout/byte_pattern.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {

namespace {

constexpr int kThreads = 256;

/// Byte `i` of the sequence: one of the eight of a word that splitmix64's finalizer makes of its number.
__device__ std::uint8_t pattern(std::uint64_t seed, std::int64_t i) {
  std::uint64_t word = seed + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(i / 8 + 1);
  word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9ULL;
  word = (word ^ word >> 27) * 0x94D049BB133111EBULL;
  word ^= word >> 31;
  return static_cast<std::uint8_t>(word >> (8 * (i % 8)));
}

__global__ void __launch_bounds__(kThreads)
    fill(std::uint64_t seed, std::int64_t first, std::int64_t count, std::uint8_t* out) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    out[i] = pattern(seed, first + i);
  }
}

__global__ void __launch_bounds__(kThreads)
    compare(std::uint64_t seed, std::int64_t count, const std::uint8_t* bytes, unsigned long long* different) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  unsigned long long bits = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    bits += __popc(static_cast<unsigned>(bytes[i] ^ pattern(seed, i)));
  }
  if (bits != 0) atomicAdd(different, bits);
}

unsigned blocks_of(std::int64_t count) {
  return static_cast<unsigned>(std::min<std::int64_t>((count + kThreads - 1) / kThreads, 1 << 14));
}

}  // namespace

void fill_pattern(std::uint64_t seed, std::int64_t first, std::int64_t count, void* out, cudaStream_t stream) {
  if (count == 0) return;
  fill<<<blocks_of(count), kThreads, 0, stream>>>(seed, first, count, static_cast<std::uint8_t*>(out));
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

void count_different_bits(std::uint64_t seed, std::int64_t count, const void* bytes, unsigned long long* different,
                          cudaStream_t stream) {
  if (count == 0) return;
  compare<<<blocks_of(count), kThreads, 0, stream>>>(seed, count, static_cast<const std::uint8_t*>(bytes), different);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace qshard::bench
