#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "bench/providers/qshard_provider.h"

namespace qshard::bench {

/// Trusted, simple kernels that judge everybody's results. Each call synchronizes the device.

/// Number of bytes in which two arrays differ. Both aligned to 256 bytes.
std::uint64_t count_differences(const void* a, const void* b, std::size_t bytes);

/// A sum over all bytes that depends on value and place; equal before and after means that nothing was written.
std::uint64_t hash_of(const void* data, std::size_t bytes);

struct ProductCheck {
  std::uint64_t checked = 0;   // outputs compared
  std::uint64_t outside = 0;   // ... whose difference is not within the bound; NaN counts
  std::uint64_t poisoned = 0;  // outputs, of all, that are NaN: never written, or wrong
  double worst = 0;            // largest difference over its bound
};

/// Compares a linear layer's output (y, or the gradient of x) with sums in double over the dequantized weight
/// `dense` [n, k]. All outputs up to 2^34 products, beyond that as many, spread evenly, as have 2^33.
///
/// Bound: an output is a sum of `length` products p_i with |error| <=
///   S (length + 1) 2^-23      any order of summation in float, adders that truncate (tensor cores) included
/// + S roundings u             every product rounded `roundings` times to dtype before it is summed
/// + |sum| u                   the output's own rounding
/// with S = sum |p_i| and u = 2^-8 (bf16), 2^-11 (f16), 2^-24 (f32), half a unit in the last place, relative.
ProductCheck check_product(const qshard_problem& problem, const qshard_buffers& buffers, const void* dense,
                           int roundings);

/// Fills with random values in [-1, 1), different for each seed.
void fill_random_bf16(void* data, std::size_t elements, std::uint64_t seed);

}  // namespace qshard::bench
