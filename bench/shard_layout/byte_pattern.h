#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace qshard::bench {

/// Bytes `first` up to `first + count` of the endless random sequence that `seed` names. `out`: device memory of any
/// alignment. One launch on `stream`.
void fill_pattern(std::uint64_t seed, std::int64_t first, std::int64_t count, void* out, cudaStream_t stream);

/// Adds to *different (device memory) the number of bits in which `bytes` differ from the sequence's first `count`
/// bytes.
void count_different_bits(std::uint64_t seed, std::int64_t count, const void* bytes, unsigned long long* different,
                          cudaStream_t stream);

}  // namespace qshard::bench
