#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"

// The nearest entry of a map of 256 ascending values, as bitsandbytes' kernels search it.
namespace qshard::optimized {

/// The map as the search walks it: node 1 is the middle entry, 2n and 2n + 1 are below and above n. Each of the
/// search's first levels lies in memory banks of its own. Levels 0 to 6 are the odd entries, level 7 the even ones.
struct SearchTree {
  float node[256];
  float neighbour[129];  // entries 0, 1, 3, 5, ..., 255: those around each even entry
};

/// Index in the map for `x`: seven comparisons, then the nearer of the entry found and its neighbour on the side of x;
/// a tie stays with the entry found, an even one. NaN gives 0. Works on byte offsets, which are what a load takes.
__device__ __forceinline__ std::uint32_t nearest_code(const SearchTree& tree, float x) {
  const auto at = [](const float* column, std::uint32_t offset) {
    return *reinterpret_cast<const float*>(reinterpret_cast<const char*>(column) + offset);
  };
  const auto add_if_above = [](std::uint32_t& sum, float a, float b, std::uint32_t addend) {
    asm("{.reg .pred above; setp.gt.f32 above, %1, %2; @above add.u32 %0, %0, %3;}"
        : "+r"(sum)
        : "f"(a), "f"(b), "r"(addend));
  };
  std::uint32_t node = sizeof(float);
#pragma unroll
  for (int level = 0; level < 7; ++level) {
    const float value = at(tree.node, node);
    node *= 2;
    add_if_above(node, x, value, sizeof(float));
  }
  const float value = at(tree.node, node);
  const std::uint32_t place = node - 128 * sizeof(float);
  std::uint32_t side = place;  // of the neighbour: the one above where x is above
  add_if_above(side, x, value, sizeof(float));
  const float middle = multiply_ftz(add_ftz(at(tree.neighbour, side), value), 0.5F);
  std::uint32_t code = place / 2;  // the entry found: 2 * (node - 128)
  if (side != place) {
    add_if_above(code, x, middle, 1);
  } else if (x < middle && code > 0) {
    --code;
  }
  return code;
}

/// By all kThreads threads of a thread block, which must meet before the tree is searched.
template <int kThreads>
__device__ __forceinline__ void build_tree(SearchTree& tree, const float* map) {
  for (int n = static_cast<int>(threadIdx.x); n < 256; n += kThreads) {
    const int level = 31 - __clz(max(n, 1));
    const int entry = ((2 * (n - (1 << level)) + 1) << (7 - level)) - 1;
    if (n > 0) tree.node[n] = add_ftz(map[entry], 0.0F);
    if (n <= 128) tree.neighbour[n] = add_ftz(map[n == 0 ? 0 : 2 * n - 1], 0.0F);
  }
}

}  // namespace qshard::optimized
