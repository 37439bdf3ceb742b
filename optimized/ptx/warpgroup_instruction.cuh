#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Hopper's warpgroup matrix instruction and what belongs to it, one function an instruction. Everything here exists for
// sm_90a alone.
namespace qshard::optimized {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// A descriptor's first field: 14 bits of an address in units of 16 bytes. What lies above them in the address is the
/// thread block's place in its cluster.
__device__ __forceinline__ std::uint64_t address_field(std::uint32_t address) {
  return address >> 4 & 0x3FFFU;
}

/// Matrix b [columns, 16] in shared memory as the instruction takes it: pieces of 8 columns by 16 bytes, 128 bytes
/// each; the two halves of the inner dimension are 128 bytes apart, groups of 8 columns 256. Addresses and sizes: an
/// address further on by 16 n bytes is a descriptor greater by n.
__device__ __forceinline__ std::uint64_t matrix_descriptor(std::uint32_t address) {
  return address_field(address) | std::uint64_t{128 >> 4} << 16 | std::uint64_t{256 >> 4} << 32;
}

/// Matrix b [columns, 64] as a copy with the 128-byte swizzle lays it out: rows of 128 bytes, aligned to 1024. The next
/// 16 of the inner dimension are 32 bytes further on.
__device__ __forceinline__ std::uint64_t swizzled_matrix_descriptor(std::uint32_t address) {
  return address_field(address) | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// The same for sums that other instructions have written.
template <int kCount>
__device__ __forceinline__ void wgmma_fence(float (&d)[kCount]) {
#pragma unroll
  for (float& value : d) asm volatile("" : "+f"(value)::"memory");
  wgmma_fence();
}

/// The same for registers that hold the first operands of kCount instructions: all of them are written before, and none
/// between the instructions, which would make the compiler split their group.
template <int kCount>
__device__ __forceinline__ void wgmma_fence(std::uint32_t (&a)[kCount][4]) {
#pragma unroll
  for (auto& operand : a) {
    asm volatile("" : "+r"(operand[0]), "+r"(operand[1]), "+r"(operand[2]), "+r"(operand[3])::"memory");
  }
  wgmma_fence();
}

/// Closes the group of instructions issued so far.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most kPending groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// The same. `d`: the sums of one that is done then, which nothing may read
/// earlier.
template <int kPending, int kCount>
__device__ __forceinline__ void wgmma_wait(float (&d)[kCount]) {
  wgmma_wait<kPending>();
#pragma unroll
  for (float& value : d) asm volatile("" : "+f"(value)::"memory");
}

// One instruction; `sums` names d's registers, 0 and up; then a, b, whether to add and whether b is transposed; d's
// operands come last.
#define QSHARD_MULTIPLY(dtype, columns, sums, a_names, b_name, add_name, transposed_name, ...)                       \
  asm volatile("{.reg .pred add; setp.ne.b32 add, " add_name ", 0; wgmma.mma_async.sync.aligned.m64n" columns        \
               "k16.f32." dtype "." dtype " {" sums "}, {" a_names "}, " b_name ", add, 1, 1, " transposed_name ";}" \
               : __VA_ARGS__                                                                                         \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0), "n"(kTransposed ? 1 : 0))

#define QSHARD_MULTIPLY_EITHER(...)          \
  if constexpr (std::is_same_v<T, __half>) { \
    QSHARD_MULTIPLY("f16", __VA_ARGS__);     \
  } else {                                   \
    QSHARD_MULTIPLY("bf16", __VA_ARGS__);    \
  }

#define QSHARD_SUMS_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define QSHARD_SUMS_8(i) QSHARD_SUMS_4(i), QSHARD_SUMS_4((i) + 4)
#define QSHARD_SUMS_16(i) QSHARD_SUMS_8(i), QSHARD_SUMS_8((i) + 8)
#define QSHARD_SUMS_32(i) QSHARD_SUMS_16(i), QSHARD_SUMS_16((i) + 16)
#define QSHARD_SUMS_64(i) QSHARD_SUMS_32(i), QSHARD_SUMS_32((i) + 32)

#define QSHARD_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define QSHARD_NAMES_32 \
  QSHARD_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define QSHARD_NAMES_48 \
  QSHARD_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define QSHARD_NAMES_64 \
  QSHARD_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define QSHARD_NAMES_80 \
  QSHARD_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define QSHARD_NAMES_96 \
  QSHARD_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define QSHARD_NAMES_112 \
  QSHARD_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define QSHARD_NAMES_128 \
  QSHARD_NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/// d = a b, or d += a b where `add`: a [64, 16] in the registers of a warpgroup, each warp its 16 rows; b from shared
/// memory, [16, columns] instead of [columns, 16] where kTransposed. Asynchronous. d holds 4 values for each 8 columns,
/// laid out as those of mma.m16n8k16.
template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[4], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("8", "%0, %1, %2, %3", "%4, %5, %6, %7", "%8", "%9", "%10", QSHARD_SUMS_4(0))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[8], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("16", "%0, %1, %2, %3, %4, %5, %6, %7", "%8, %9, %10, %11", "%12", "%13", "%14",
                         QSHARD_SUMS_8(0))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[16], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("32", QSHARD_NAMES_16, "%16, %17, %18, %19", "%20", "%21", "%22", QSHARD_SUMS_16(0))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[32], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("64", QSHARD_NAMES_32, "%32, %33, %34, %35", "%36", "%37", "%38", QSHARD_SUMS_32(0))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[40], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("80", QSHARD_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39", "%40, %41, %42, %43", "%44",
                         "%45", "%46", QSHARD_SUMS_32(0), QSHARD_SUMS_8(32))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[48], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("96", QSHARD_NAMES_48, "%48, %49, %50, %51", "%52", "%53", "%54", QSHARD_SUMS_32(0),
                         QSHARD_SUMS_16(32))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[64], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("128", QSHARD_NAMES_64, "%64, %65, %66, %67", "%68", "%69", "%70", QSHARD_SUMS_32(0),
                         QSHARD_SUMS_32(32))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[68], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("136", QSHARD_NAMES_64 ", %64, %65, %66, %67", "%68, %69, %70, %71", "%72", "%73", "%74",
                         QSHARD_SUMS_64(0), QSHARD_SUMS_4(64))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[80], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("160", QSHARD_NAMES_80, "%80, %81, %82, %83", "%84", "%85", "%86", QSHARD_SUMS_32(0),
                         QSHARD_SUMS_32(32), QSHARD_SUMS_16(64))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[96], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("192", QSHARD_NAMES_96, "%96, %97, %98, %99", "%100", "%101", "%102", QSHARD_SUMS_32(0),
                         QSHARD_SUMS_32(32), QSHARD_SUMS_32(64))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[112], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("224", QSHARD_NAMES_112, "%112, %113, %114, %115", "%116", "%117", "%118", QSHARD_SUMS_32(0),
                         QSHARD_SUMS_32(32), QSHARD_SUMS_32(64), QSHARD_SUMS_16(96))
}

template <typename T, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[128], const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  QSHARD_MULTIPLY_EITHER("256", QSHARD_NAMES_128, "%128, %129, %130, %131", "%132", "%133", "%134", QSHARD_SUMS_64(0),
                         QSHARD_SUMS_64(64))
}

// `sums` names d's registers; then a, b, whether to add and whether a is transposed; d's operands come last.
#define QSHARD_MULTIPLY_SHARED(dtype, columns, sums, a_name, b_name, add_name, transposed_name, ...)                 \
  asm volatile("{.reg .pred add; setp.ne.b32 add, " add_name ", 0; wgmma.mma_async.sync.aligned.m64n" columns        \
               "k16.f32." dtype "." dtype " {" sums "}, " a_name ", " b_name ", add, 1, 1, " transposed_name ", 0;}" \
               : __VA_ARGS__                                                                                         \
               : "l"(a), "l"(b), "r"(add ? 1 : 0), "n"(kTransposed ? 1 : 0))

#define QSHARD_WGMMA_SHARED(count, ...)                                                                        \
  template <typename T, bool kTransposed>                                                                      \
  __device__ __forceinline__ void wgmma_shared(float(&d)[count], std::uint64_t a, std::uint64_t b, bool add) { \
    if constexpr (std::is_same_v<T, __half>) {                                                                 \
      QSHARD_MULTIPLY_SHARED("f16", __VA_ARGS__);                                                              \
    } else {                                                                                                   \
      QSHARD_MULTIPLY_SHARED("bf16", __VA_ARGS__);                                                             \
    }                                                                                                          \
  }

// The same with both from shared memory; kTransposed: a is stored as [16, 64].
QSHARD_WGMMA_SHARED(32, "64", QSHARD_NAMES_32, "%32", "%33", "%34", "%35", QSHARD_SUMS_32(0))
QSHARD_WGMMA_SHARED(48, "96", QSHARD_NAMES_48, "%48", "%49", "%50", "%51", QSHARD_SUMS_32(0), QSHARD_SUMS_16(32))
QSHARD_WGMMA_SHARED(56, "112", QSHARD_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55", "%56", "%57", "%58", "%59",
                    QSHARD_SUMS_32(0), QSHARD_SUMS_16(32), QSHARD_SUMS_8(48))
QSHARD_WGMMA_SHARED(64, "128", QSHARD_NAMES_64, "%64", "%65", "%66", "%67", QSHARD_SUMS_64(0))
QSHARD_WGMMA_SHARED(72, "144", QSHARD_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71", "%72", "%73", "%74", "%75",
                    QSHARD_SUMS_64(0), QSHARD_SUMS_8(64))
QSHARD_WGMMA_SHARED(80, "160", QSHARD_NAMES_80, "%80", "%81", "%82", "%83", QSHARD_SUMS_64(0), QSHARD_SUMS_16(64))
QSHARD_WGMMA_SHARED(96, "192", QSHARD_NAMES_96, "%96", "%97", "%98", "%99", QSHARD_SUMS_64(0), QSHARD_SUMS_32(64))
QSHARD_WGMMA_SHARED(100, "200", QSHARD_NAMES_96 ", %96, %97, %98, %99", "%100", "%101", "%102", "%103",
                    QSHARD_SUMS_64(0), QSHARD_SUMS_32(64), QSHARD_SUMS_4(96))
QSHARD_WGMMA_SHARED(112, "224", QSHARD_NAMES_112, "%112", "%113", "%114", "%115", QSHARD_SUMS_64(0), QSHARD_SUMS_32(64),
                    QSHARD_SUMS_16(96))
QSHARD_WGMMA_SHARED(128, "256", QSHARD_NAMES_128, "%128", "%129", "%130", "%131", QSHARD_SUMS_64(0), QSHARD_SUMS_64(64))

#undef QSHARD_WGMMA_SHARED
#undef QSHARD_MULTIPLY_SHARED
#undef QSHARD_NAMES_128
#undef QSHARD_NAMES_112
#undef QSHARD_NAMES_96
#undef QSHARD_NAMES_80
#undef QSHARD_NAMES_64
#undef QSHARD_NAMES_48
#undef QSHARD_NAMES_32
#undef QSHARD_NAMES_16
#undef QSHARD_SUMS_64
#undef QSHARD_SUMS_32
#undef QSHARD_SUMS_16
#undef QSHARD_SUMS_8
#undef QSHARD_SUMS_4
#undef QSHARD_MULTIPLY_EITHER
#undef QSHARD_MULTIPLY

/// Moves registers between the warpgroups of a thread block; all of a warpgroup's warps call it. kCount: a multiple
/// of 8.
template <int kCount>
__device__ __forceinline__ void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

template <int kCount>
__device__ __forceinline__ void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

#endif

}  // namespace qshard::optimized
