#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "optimized/ptx/warpgroup_instruction.cuh"

// wgmma with a second operand that is stored by its inner dimension, as the right factor of an ordinary product of
// matrices in row order is.
namespace qshard::optimized {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// Matrix b [16, columns] as boxes of 64 columns in the 128-byte swizzle, `box_bytes` from one box to the next: a line
/// of 128 bytes is one of the inner dimension. `address`, aligned to 1024, is that of the first of the 16 lines.
__device__ __forceinline__ std::uint64_t transposed_matrix_descriptor(std::uint32_t address, int box_bytes) {
  return address_field(address) | static_cast<std::uint64_t>(box_bytes >> 4) << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

#define QSHARD_TRANSPOSED_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define QSHARD_TRANSPOSED_16(i) \
  QSHARD_TRANSPOSED_4(i), QSHARD_TRANSPOSED_4((i) + 4), QSHARD_TRANSPOSED_4((i) + 8), QSHARD_TRANSPOSED_4((i) + 12)
#define QSHARD_TRANSPOSED_32(i) QSHARD_TRANSPOSED_16(i), QSHARD_TRANSPOSED_16((i) + 16)
#define QSHARD_TRANSPOSED(dtype, columns, sums, a, b, add_name, ...)                                          \
  asm volatile("{.reg .pred add; setp.ne.b32 add, " add_name ", 0; wgmma.mma_async.sync.aligned.m64n" columns \
               "k16.f32." dtype "." dtype " {" sums "}, {" a "}, " b ", add, 1, 1, 1;}"                       \
               : __VA_ARGS__                                                                                  \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"(add ? 1 : 0))

#define QSHARD_TRANSPOSED_EITHER(...)        \
  if constexpr (std::is_same_v<T, __half>) { \
    QSHARD_TRANSPOSED("f16", __VA_ARGS__);   \
  } else {                                   \
    QSHARD_TRANSPOSED("bf16", __VA_ARGS__);  \
  }

/// d = a b, or d += a b where `add`: a [64, 16] in the registers of a warpgroup, each warp its 16 rows; b [16, columns]
/// as transposed_matrix_descriptor() describes it. Asynchronous; d as in wgmma().
template <typename T>
__device__ __forceinline__ void wgmma_transposed(float (&d)[32], const std::uint32_t (&left)[4], std::uint64_t right,
                                                 bool add) {
  QSHARD_TRANSPOSED_EITHER(
      "64",
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
      "%23, %24, %25, %26, %27, %28, %29, %30, %31",
      "%32, %33, %34, %35", "%36", "%37", QSHARD_TRANSPOSED_32(0))
}

template <typename T>
__device__ __forceinline__ void wgmma_transposed(float (&d)[64], const std::uint32_t (&left)[4], std::uint64_t right,
                                                 bool add) {
  QSHARD_TRANSPOSED_EITHER(
      "128",
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
      "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63",
      "%64, %65, %66, %67", "%68", "%69", QSHARD_TRANSPOSED_32(0), QSHARD_TRANSPOSED_32(32))
}

#undef QSHARD_TRANSPOSED_EITHER
#undef QSHARD_TRANSPOSED
#undef QSHARD_TRANSPOSED_32
#undef QSHARD_TRANSPOSED_16
#undef QSHARD_TRANSPOSED_4

#endif

}  // namespace qshard::optimized
