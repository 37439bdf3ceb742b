#pragma once

#include <cmath>
#include <cstdint>

#include "optimized/device_math.cuh"

// The nearest entry of a map of 256 ascending values, as bitsandbytes' kernels search it.
namespace qshard::optimized {

/// Where the map's entries part, as the search walks: what parts entry i from the next one lies at i with its bits in
/// reverse order, so that what a step chooses among lies side by side, for the first six steps in different memory
/// banks.
struct SearchTree {
  float value[256];
};

/// Indices in the map for `x`: of each the first whose parting value is not below it, found bit by bit from the highest
/// on, for all of them side by side: volatile, the loads stay in this order. NaN gives 0. Works on byte offsets, which
/// are what a load takes.
template <int kCount>
__device__ __forceinline__ void nearest_codes(const SearchTree& tree, const float (&x)[kCount],
                                              std::uint32_t (&codes)[kCount]) {
  std::uint32_t reversed[kCount] = {};
#pragma unroll
  for (int bit = 0; bit < 8; ++bit) {
    const char* lower_bits_set = reinterpret_cast<const char*>(tree.value) + (0xFF << (bit + 1) & 0xFF) * 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      asm("{.reg .pred above; setp.gt.f32 above, %1, %2; @above add.u32 %0, %0, %3;}"
          : "+r"(reversed[i])
          : "f"(x[i]), "f"(*reinterpret_cast<const volatile float*>(lower_bits_set + reversed[i])), "r"(4U << bit));
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) codes[i] = __brev(reversed[i]) >> 22;
}

/// The largest value whose index is `entry`, which is not the last one. A value halfway between two entries goes to the
/// even one; and none goes past an odd entry that it is not above.
__device__ __forceinline__ float parting_value(const float* map, int entry) {
  const float here = add_ftz(map[entry], 0.0F);
  const float middle = multiply_ftz(add_ftz(here, map[entry + 1]), 0.5F);
  return entry % 2 == 0 ? middle : fmaxf(here, nextafterf(middle, -INFINITY));
}

/// By the threads of a thread block, 256 at least, which must meet before the tree is searched.
__device__ __forceinline__ void build_tree(SearchTree& tree, const float* map) {
  const auto entry = static_cast<int>(threadIdx.x);
  if (entry < 255) tree.value[__brev(entry) >> 24] = parting_value(map, entry);
}

}  // namespace qshard::optimized
