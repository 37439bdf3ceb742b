#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace qshard::bench::ladder {

/// The 16 values of NF4 or FP4. A kernel parameter lives in constant memory.
struct Codebook {
  float values[16];
};

/// A nested 4-bit weight in device memory and where its bfloat16 values go.
struct Arguments {
  const std::uint8_t* codes;
  const std::uint8_t* absmax_codes;
  const float* nested_absmax;
  const float* nested_map;
  const float* offset;
  std::uint16_t* out;
  std::int64_t elements;
  int blocksize_log2;  // 5 (blocks of 32) and up
  Codebook codebook;
};

/// Sizes that every step takes without handling a tail: multiples of this many elements.
inline constexpr std::int64_t kMultiple = 8192;

void step1_naive(const Arguments& arguments, cudaStream_t stream);
void step2_shared_table(const Arguments& arguments, cudaStream_t stream);
void step3_byte(const Arguments& arguments, cudaStream_t stream);
void step4_wide(const Arguments& arguments, cudaStream_t stream);
void step5_in_flight(const Arguments& arguments, cudaStream_t stream);

}  // namespace qshard::bench::ladder
