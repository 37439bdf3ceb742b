#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"

namespace qshard::optimized::cluster {

/// The scale of the line of the weight that a thread dequantizes next. It is asked for ahead of time, so that the loads
/// from device memory overlap other work. They may be of constant data, since the barrier of the cluster lies between
/// them and the wait for earlier kernels. kNested: scales are nested.
template <bool kNested>
class LineScale {
 public:
  /// When earlier kernels are done. map: the address of the nested map that warpgroup::fill_map() fills.
  __device__ __forceinline__ LineScale(const BlockScales& scales, std::uint32_t map)
      : scales_(scales),
        map_(map + 4 * (static_cast<int>(threadIdx.x) % 32 % warpgroup::kMapCopies)),
        offset_(kNested ? __ldg(scales.offset) : 0.0F) {
    asm("" : "+r"(map_));  // kept, not computed again
  }

  /// Asks for the scale of a block of the weight.
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
