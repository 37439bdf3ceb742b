#pragma once

#include <cstdint>

namespace qshard::optimized {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Four matrices of 8 rows of 8 two-byte elements from shared memory, transposed: lane l gives the address of row l % 8
/// of matrix l / 8 (a multiple of 16) and gets, of each matrix, rows 2 * (l % 4) and the next of column l / 4.
__device__ __forceinline__ uint4 load_transposed(std::uint32_t address) {
  uint4 words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(address)
               : "memory");
  return words;
}

}  // namespace qshard::optimized
