#pragma once

#include <cstdint>

// Shared memory by address, for kernels that lay it out by hand. In program order with barriers and with each other.
namespace qshard::optimized {

__device__ __forceinline__ std::uint32_t load_shared_u32(std::uint32_t address) {
  std::uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

__device__ __forceinline__ uint2 load_shared_u32x2(std::uint32_t address) {
  uint2 value;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address) : "memory");
  return value;
}

/// Two floats, from a multiple of 8 bytes.
__device__ __forceinline__ float2 load_shared_f32x2(std::uint32_t address) {
  const uint2 bits = load_shared_u32x2(address);
  return make_float2(__uint_as_float(bits.x), __uint_as_float(bits.y));
}

/// Four words, from a multiple of 16 bytes.
__device__ __forceinline__ uint4 load_shared_u32x4(std::uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
}

__device__ __forceinline__ std::uint32_t load_shared_u8(std::uint32_t address) {
  std::uint32_t value;
  asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

__device__ __forceinline__ void store_shared_u32x4(std::uint32_t address, uint4 value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

/// Four matrices of 8 by 8 two-byte elements: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, aligned
/// to 16), and lane 4 * g + t gets elements 2 * t and 2 * t + 1 of row g of each.
__device__ __forceinline__ void ldmatrix(std::uint32_t (&values)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
               : "r"(address)
               : "memory");
}

/// The same of the matrices' transposes: lane 4 * g + t gets elements g of rows 2 * t and 2 * t + 1.
__device__ __forceinline__ void ldmatrix_transposed(std::uint32_t (&values)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void store_shared_u32(std::uint32_t address, std::uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

/// For a word that threads of the block set and get at any time: atomic operations, so that compute-sanitizer's
/// racecheck does not take it for a mistake.
__device__ __forceinline__ int atomic_load_shared(std::uint32_t address) {
  int value;
  asm volatile("atom.relaxed.cta.shared.or.b32 %0, [%1], 0;" : "=r"(value) : "r"(address) : "memory");
  return value;
}

__device__ __forceinline__ void atomic_store_shared(std::uint32_t address, int value) {
  asm volatile("atom.relaxed.cta.shared.exch.b32 _, [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// Four matrices of 8 by 8 two-byte elements, of which lane 4 * g + t has elements 2 * t and 2 * t + 1 of row g each;
/// lane l gives the address for column l % 8 of matrix l / 8.
__device__ __forceinline__ void stmatrix_transposed(std::uint32_t address, const std::uint32_t (&values)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(values[0]),
               "r"(values[1]), "r"(values[2]), "r"(values[3])
               : "memory");
}

#endif

}  // namespace qshard::optimized
