#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/linear4bit/few_rows/few_rows_cut.h"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/linear4bit/stage_counter.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/tensor_copy.cuh"

namespace qshard::optimized::few_rows {

/// Arguments of the kernel; x [rows, in_features], y [rows, out_features].
template <typename T>
struct Task {
  int first_block;  // of the launch's thread blocks
  int thread_blocks;
  Tiles tiles;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  std::int64_t out_features;
  const T* x;
  std::int64_t x_stride;
  int rows;
  T* y;
  std::int64_t y_stride;
  bool resident;  // no earlier kernel writes the weight
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Row of a half tile that lanes 4 * g to 4 * g + 3 read: rows next to each other swap places in the copy's swizzle, so
/// half a warp must not read two of them.
__device__ __forceinline__ int swizzled_row(int g) {
  return 2 * (g % 4) + g / 4;
}

using Stage = StageCounter<kStages>;

#endif

struct SharedMemory {
  unsigned char table[PairTable::kBytes];
  unsigned char codes[kStages][2][kWarps][kHalfRows * kChunkBytes];
  unsigned char absmax_codes[kStages][2][kWarps][kHalfRows * kChunkGroups];
  float partials[kWarps][kPartials];
  float nested_map[256 * kMapCopies];
  float nested_absmax[kNestedStaged];
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];
  int first_unit[kWarps + 1];  // of each team's rows, in units of 8 rows; last the next thread block's

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

  /// Sets up what the thread block shares; one warp calls it.
  template <typename T>
  __device__ void prepare(const Task<T>& task, int lane) {
    if (lane <= task.tiles.teams()) {
      first_unit[lane] = task.tiles.first_unit(task.out_features, static_cast<int>(blockIdx.x) - task.first_block,
                                               task.thread_blocks, lane);
    }
    if (lane != 0) return;
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(shared_address(&full[stage]), 1);
      mbarrier_init(shared_address(&empty[stage]), kWarps);
    }
    mbarrier_init_fence();
  }

  /// Halves of a row tile's 16 rows that the team has.
  __device__ __forceinline__ int halves(int team, int row_tile) const {
    return halves_of_row_tile(first_unit[team + 1] - first_unit[team], row_tile);
  }

#endif
};

}  // namespace qshard::optimized::few_rows
