#pragma once

#include <array>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

// The specification once more, written on the GPU without any cleverness: one thread a block or an output, threshold by
// threshold. For inputs too many for the CPU. All pointers are device pointers; each function waits for its kernel.
namespace qshard::test {

/// values[i] = the i-th input of a sweep over pairs: block b of `blocksize` begins with anchor(b) and goes on with
/// blocksize - 1 consecutive bit patterns from `first_pattern` on, wrapping at the dtype's width. anchors has one
/// 32-bit pattern a block.
void fill_sweep(DType dtype, std::int64_t blocks, int blocksize, const std::uint32_t* anchors,
                const std::uint32_t* first_patterns, void* values);

/// values[i] = a normal deviate of standard deviation `scale`, by a hash of i and `seed`.
void fill_normal(DType dtype, std::int64_t elements, std::uint64_t seed, float scale, void* values);

/// Number of bytes of codes plus number of absmax that are not what the specification gives for `weight`.
std::uint64_t wrong_codes(const void* weight, DType dtype, std::int64_t elements, QuantType type, int blocksize,
                          const std::uint8_t* codes, const float* absmax);

/// Number of elements of `out` that are not codebook[code] * absmax, rounded once.
std::uint64_t wrong_values(const std::uint8_t* codes, const float* absmax, std::int64_t elements, QuantType type,
                           int blocksize, DType dtype, const void* out);

/// map[code] * nested_absmax, rounded, + offset, rounded.
void decode_absmax(const std::uint8_t* absmax_codes, const float* nested_absmax, const float* map, const float* offset,
                   std::int64_t blocks, float* absmax);

/// A product with a 4-bit weight [out_features, in_features] in double. forward: in [rows, in_features]; else the
/// gradient, in [rows, out_features].
struct LiteralProduct {
  const std::uint8_t* codes;
  const float* absmax;
  int blocksize;
  std::int64_t out_features;
  std::int64_t in_features;
  std::array<float, 16> codebook;
  bool round_weight;  // to dtype, as dequantize() does
  DType dtype;        // of `in`
  bool forward;
};

/// sums[row, column] = sum of in * w, magnitudes[row, column] = sum of |in * w|.
void multiply(const LiteralProduct& product, const void* in, std::int64_t in_stride, std::int64_t rows, double* sums,
              double* magnitudes);

}  // namespace qshard::test
