#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/few_rows/few_rows_cut.h"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/stage_counter.cuh"

namespace qshard::optimized::few_rows {

/// The tiles of a kernel for so many rows of x: see Tiles. One for two rows also multiplies a single one.
template <int kRows>
inline constexpr bool kBeside = kRows == 1;
template <int kRows>
inline constexpr int kTileRows = kBeside<kRows> ? kHalfRows : 2 * kHalfRows;

struct RowRange {
  int first;
  int end;
};

/// Arguments of the kernel; x [rows, in_features], y [rows, out_features].
template <typename T>
struct Task {
  int first_block;  // of the launch's thread blocks
  Tiles tiles;
  ScaleLayout scale_layout;
  int pieces;  // copied_pieces()
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int blocks_a_row;  // of absmax
  int out_features;
  int in_features;
  const T* x;
  std::int64_t x_stride;
  int rows;
  T* y;
  std::int64_t y_stride;
  bool resident;  // no earlier kernel writes the weight

  /// The product's thread block that this is.
  [[nodiscard]] __device__ __forceinline__ int own_block() const { return static_cast<int>(blockIdx.x) - first_block; }

  /// A team's rows of the weight: see Tiles.
  [[nodiscard]] __device__ __forceinline__ RowRange rows_of(int team) const {
    const int first = tiles.first_unit(own_block(), team);
    return rows_of_units(first, first + tiles.units_of(own_block(), team));
  }

  /// Those of all teams.
  [[nodiscard]] __device__ __forceinline__ RowRange rows_of_block() const {
    return rows_of_units(tiles.first_unit(own_block(), 0), tiles.first_unit(own_block(), tiles.teams));
  }

 private:
  [[nodiscard]] __device__ __forceinline__ RowRange rows_of_units(int first, int end) const {
    return {first * kHalfRows, min(end * kHalfRows, out_features)};
  }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Row of a half tile that lanes 4 * g to 4 * g + 3 read. The rows of half a warp are 0, 3, 4, 7 or 1, 2, 5, 6: neither
/// in the swizzle of 128 bytes nor in that of 64 are two of them in the same banks.
__device__ __forceinline__ int swizzled_row(int g) {
  return (g % 2 * 3 | g / 2 % 2 * 4) ^ g / 4;
}

using Stage = StageCounter<kStages>;

// Named barriers: of the thread block, where what it shares is ready; of its consumers.
constexpr int kReady = 1;
constexpr int kConsumers = 2;

#endif

struct SharedMemory {
  unsigned char table[PairTable::kBytes];
  unsigned char copied[kCopiedBytes];
  float partials[kMostWarps][kPartials];
  float nested_map[256 * kMapCopies];
  float nested_absmax[kNestedStaged];
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

  /// Sets up the barriers; one thread calls it.
  __device__ __forceinline__ void prepare(const Tiles& tiles) {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(shared_address(&full[stage]), 1);
      mbarrier_init(shared_address(&empty[stage]), tiles.warps());
    }
    mbarrier_init_fence();
  }

#endif
};

}  // namespace qshard::optimized::few_rows
