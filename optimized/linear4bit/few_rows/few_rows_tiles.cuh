#pragma once

#include <algorithm>
#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/device_weight4bit.h"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/linear4bit/stage_counter.cuh"
#include "optimized/ptx/tensor_copy.cuh"

// How linear4bit_few_tma.cu cuts the weight. A thread block has one producer warp and 16 workers. The workers form
// teams of `warps_a_row`; a team owns consecutive weight rows and takes them in bands of 16. Along a row a warp of the
// team takes every warps_a_row-th chunk of 256 elements; a segment is one chunk of each. A tile is what a stage of
// shared memory holds: a band's segment, of each team.
namespace qshard::optimized {

constexpr int kWarps = 16;
constexpr int kWorkers = kWarps * 32;
constexpr int kThreads = kWorkers + 32;
constexpr int kTileRows = 16;       // those of one matrix instruction
constexpr int kHalfRows = 8;        // copied at a time; the unit in which rows are dealt out
constexpr int kGroupElements = 64;  // a group lies inside one block
constexpr int kChunkGroups = 4;
constexpr int kChunk = kChunkGroups * kGroupElements;
constexpr int kChunkBytes = kChunk / 2;
constexpr int kStages = 3;      // 96 KiB on their way keep an H200's memory busy
constexpr int kPartials = 896;  // floats of a warp: the 14 bands of 28672 rows on 132 multiprocessors, for one row of x
constexpr int kMapCopies = 4;   // of the nested map, against bank conflicts
constexpr int kNestedStaged = 512;

struct FewRowsTiles {
  int chunks;       // of a weight row
  int warps_a_row;  // a power of two
  int segments;     // of a weight row
  int bands;        // of the team that has most rows
  int batch;        // bands whose sums are kept until they are stored

  __host__ __device__ int teams() const { return kWarps / warps_a_row; }
};

/// Arguments of the kernel; x [rows, in_features], y [rows, out_features].
template <typename T>
struct FewRowsTask {
  FewRowsTiles tiles;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  std::int64_t out_features;
  const T* x;
  std::int64_t x_stride;
  int rows;
  T* y;
  std::int64_t y_stride;
};

/// The cut with the fewest chunks for the busiest warp; the most warps a row among equals.
inline FewRowsTiles cut_into_tiles(std::int64_t out_features, std::int64_t in_features, int multiprocessors) {
  FewRowsTiles best{};
  std::int64_t fewest = 0;
  for (int warps = kWarps; warps >= 1; warps /= 2) {
    FewRowsTiles tiles{};
    tiles.chunks = static_cast<int>(in_features / kChunk);
    tiles.warps_a_row = warps;
    tiles.segments = static_cast<int>(block_count(tiles.chunks, warps));
    const std::int64_t units = block_count(out_features, std::int64_t{kHalfRows} * multiprocessors * tiles.teams());
    const std::int64_t cost = tiles.segments * block_count(units, 2);
    if (warps < kWarps && cost >= fewest) continue;
    best = tiles;
    fewest = cost;
  }
  return best;
}

/// Whether a tile's absmax codes can be copied with it, and all nested statistics of a thread block before.
inline bool can_stage_scales(const DeviceWeight4bit& weight, const FewRowsTiles& tiles) {
  const std::int64_t blocks =
      static_cast<std::int64_t>(tiles.bands) * tiles.teams() * kTileRows * tiles.chunks * kChunkGroups;
  return weight.nested() && weight.blocksize == kGroupElements && tiles.chunks % 4 == 0 && tiles.warps_a_row >= 4 &&
         reinterpret_cast<std::uintptr_t>(weight.absmax_codes) % 16 == 0 &&
         blocks / kNestedBlocksize + 2 <= kNestedStaged;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Row of a half tile that lanes 4 * g to 4 * g + 3 read: rows next to each other swap places in the copy's swizzle, so
/// half a warp must not read two of them.
__device__ __forceinline__ int swizzled_row(int g) {
  return 2 * (g % 4) + g / 4;
}

using TileStage = StageCounter<kStages>;

__device__ __forceinline__ void workers_meet() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory");
}

#endif

struct FewRowsShared {
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

  /// By one warp.
  __device__ void prepare(const FewRowsTiles& tiles, std::int64_t out_features, int lane) {
    if (lane <= tiles.teams()) {
      const std::int64_t units = (out_features + kHalfRows - 1) / kHalfRows;
      const std::int64_t team = static_cast<std::int64_t>(blockIdx.x) * tiles.teams() + lane;
      first_unit[lane] = static_cast<int>(units * team / (static_cast<std::int64_t>(gridDim.x) * tiles.teams()));
    }
    if (lane != 0) return;
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(shared_address(&full[stage]), 1);
      barrier_init(shared_address(&empty[stage]), kWarps);
    }
    barrier_init_fence();
  }

  /// Halves of a band's 16 rows that the team has.
  __device__ __forceinline__ int halves(int team, int band) const {
    return min(2, max(0, first_unit[team + 1] - first_unit[team] - 2 * band));
  }

#endif
};

}  // namespace qshard::optimized
