#pragma once

#include <cuda_bf16.h>

#include "bench/ladder/ladder.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench::ladder {

inline constexpr int kThreads = 256;

/// The scale of a block: two rounded steps, as bitsandbytes takes them.
__device__ inline float decode_absmax(const Arguments& a, std::int64_t block) {
  const float scaled = __fmul_rn(a.nested_map[a.absmax_codes[block]], a.nested_absmax[block / 256]);
  return __fadd_rn(scaled, *a.offset);
}

/// A float product (subnormal results count as zero), rounded once.
__device__ inline std::uint16_t decode_value(float codebook_value, float absmax) {
  float product = 0;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(product) : "f"(codebook_value), "f"(absmax));
  return __bfloat16_as_ushort(__float2bfloat16_rn(product));
}

/// The two values of a byte, high nibble first, as they lie in memory.
__device__ inline std::uint32_t decode_byte(const float* table, unsigned byte, float absmax) {
  const std::uint32_t first = decode_value(table[byte >> 4], absmax);
  const std::uint32_t second = decode_value(table[byte & 15], absmax);
  return first | second << 16;
}

/// Eight values from four bytes of codes, the lowest byte first.
__device__ inline uint4 decode_word(const float* table, std::uint32_t codes, float absmax) {
  return {decode_byte(table, codes & 0xFF, absmax), decode_byte(table, codes >> 8 & 0xFF, absmax),
          decode_byte(table, codes >> 16 & 0xFF, absmax), decode_byte(table, codes >> 24, absmax)};
}

/// Copies the codebook to shared memory; ends with a barrier.
__device__ inline void load_table(float* table, const Codebook& codebook) {
  if (threadIdx.x < 16) table[threadIdx.x] = codebook.values[threadIdx.x];
  __syncthreads();
}

template <typename Kernel>
void launch(Kernel kernel, const Arguments& arguments, std::int64_t values_per_thread, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(arguments.elements / (values_per_thread * kThreads));
  kernel<<<blocks, kThreads, 0, stream>>>(arguments);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace qshard::bench::ladder
