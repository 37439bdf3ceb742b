#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/cluster/cluster_cut.h"
#include "optimized/linear4bit/warpgroup/nested_map.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/prefetch.cuh"
#include "optimized/ptx/shared_access.cuh"

namespace qshard::optimized::cluster {

/// The scale of the line of the weight that a thread dequantizes next. It is asked for ahead of time, so that the loads
/// from device memory overlap other work. kNested: scales are nested.
template <bool kNested>
class LineScale {
 public:
  /// map: the address of the nested map, warpgroup::kMapBytes.
  __device__ __forceinline__ LineScale(const BlockScales& scales, std::uint32_t map)
      : scales_(scales), map_(map + 4 * (static_cast<int>(threadIdx.x) % 32 % warpgroup::kMapCopies)), offset_(0.0F) {
    asm("" : "+r"(map_));  // kept, not computed again
  }

  /// Brings what ask() loads to the L2 cache, before the wait for earlier kernels.
  __device__ __forceinline__ void prefetch(std::uint32_t block) const {
    if constexpr (kNested) {
      prefetch_to_l2(scales_.absmax_codes + block);
      prefetch_to_l2(scales_.nested_absmax + (block >> kNestedShift));
    } else {
      prefetch_to_l2(scales_.absmax + block);
    }
  }

  /// When earlier kernels are done, before the rest.
  __device__ __forceinline__ void begin() {
    if constexpr (kNested) offset_ = *scales_.offset;
  }

  /// Fills the nested map; by all kThreads threads that dequantize, which are those behind the multipliers.
  template <int kThreads>
  __device__ __forceinline__ static void fill_map(const BlockScales& scales, std::uint32_t map) {
    if constexpr (kNested) {
      static_assert(256 % kThreads == 0);
      const int thread = static_cast<int>(threadIdx.x) - kMultipliers;
      if (scales.nested() && thread < kThreads) {  // always; without it the compiler makes other code than was measured
#pragma unroll
        for (int at = thread; at < 256; at += kThreads) warpgroup::store_map_value(map, at, scales.nested_map[at]);
      }
      named_barrier_sync<1, kThreads>();
    }
  }

  /// Asks for the scale of a block of the weight, by loads that have an order with the wait for earlier kernels.
  __device__ __forceinline__ void ask_first(std::uint32_t block) {
    if constexpr (kNested) {
      asm volatile("ld.global.u8 %0, [%1];" : "=r"(code_) : "l"(scales_.absmax_codes + block));
      asm volatile("ld.global.f32 %0, [%1];" : "=f"(absmax_) : "l"(scales_.nested_absmax + (block >> kNestedShift)));
    } else {
      asm volatile("ld.global.f32 %0, [%1];" : "=f"(absmax_) : "l"(scales_.absmax + block));
    }
  }

  /// The same later on, by loads of constant data: for others a fence waits, which made some products 2 to 8 % slower.
  __device__ __forceinline__ void ask(std::uint32_t block) {
    if constexpr (kNested) {
      code_ = load_byte(scales_.absmax_codes + block);
      absmax_ = __ldg(scales_.nested_absmax + (block >> kNestedShift));
    } else {
      absmax_ = __ldg(scales_.absmax + block);
    }
  }

  /// The scale that was asked for; when the nested map is filled.
  [[nodiscard]] __device__ __forceinline__ float asked() const {
    if constexpr (kNested) {
      const std::uint32_t value = load_shared_u32(map_ + 4 * warpgroup::kMapCopies * code_);
      return nested_scale(__uint_as_float(value), absmax_, offset_);
    }
    return absmax_;
  }

 private:
  /// Loaded as a 32-bit word: for a byte that is kept over a loop's turn the compiler adds an instruction that masks
  /// it.
  __device__ __forceinline__ static std::uint32_t load_byte(const std::uint8_t* from) {
    std::uint32_t value;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(value) : "l"(from));
    return value;
  }

  static constexpr int kNestedShift = 8;
  static_assert(kNestedBlocksize == 1 << kNestedShift);

  const BlockScales& scales_;
  std::uint32_t map_;  // the thread's copy of the nested map
  float offset_;
  std::uint32_t code_ = 0;
  float absmax_ = 0.0F;
};

}  // namespace qshard::optimized::cluster
