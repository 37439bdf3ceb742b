#pragma once

#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// The scales of the sums that this lane makes of a chunk: [s][half] is that of sum s of row swizzled_row(g) of either
/// half of the tile. Staged: absmax codes come with the tile, nested statistics lie in shared memory. Otherwise each
/// lane loads what it needs, one tile ahead. Plain loads: the compiler may move a __ldg() to before the wait for
/// earlier kernels.
template <typename T, int kRows, bool kStaged>
class Scales {
 public:
  static constexpr int kGroups = 8 / kRows;
  static constexpr int kSums = kChunkGroups / kGroups;

  /// Called by all workers, which meet in it.
  __device__ __forceinline__ Scales(const Task<T>& task, SharedMemory& shared)
      : scales_(task.scales),
        block_shift_(task.block_shift),
        blocks_a_row_(task.tiles.chunks * kChunk >> task.block_shift),
        row_(swizzled_row(static_cast<int>(threadIdx.x) % 32 / 4)),
        group_(static_cast<int>(threadIdx.x) % 4 * 2 / kRows) {
    const Tiles& tiles = task.tiles;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int team = warp / tiles.warps_a_row;
    const int member = warp % tiles.warps_a_row;
    first_row_ = static_cast<std::int64_t>(shared.first_unit[team]) * kHalfRows;
    rows_ = static_cast<int>(
        min(static_cast<std::int64_t>(shared.first_unit[team + 1]) * kHalfRows, task.out_features) - first_row_);
    stage_map(shared);
    if constexpr (kStaged) {
      stage_nested_absmax(shared, tiles.teams(), task.out_features);
#pragma unroll
      for (int s = 0; s < kSums; ++s) {
        const int place =
            (team * kHalfRows + row_) * tiles.warps_a_row * kChunkGroups + member * kChunkGroups + s * kGroups + group_;
        // The copy's 64-byte swizzle.
        place_[s] = tiles.warps_a_row == kWarps ? place ^ (place >> 3 & 0x30) : place;
      }
    } else {
      load(0, member);
    }
    named_barrier_sync<1, kConsumers>();
  }

  /// Before the first row tile of a segment.
  __device__ __forceinline__ void start(int row_tile, int chunk) {
    if constexpr (kStaged) {
      const std::int64_t row = first_row_ + row_tile * kTileRows + row_;
      block_ =
          static_cast<unsigned>(row * blocks_a_row_ - first_nested_ * kNestedBlocksize) + chunk * kChunkGroups + group_;
    }
  }

  /// Requests what decode() takes for this row tile; rows past the team's own keep what they had.
  __device__ __forceinline__ void load(int row_tile, int chunk) {
    if constexpr (kStaged) return;
    if (chunk * kChunk >= blocks_a_row_ << block_shift_) return;
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_tile * kTileRows + half * kHalfRows + row_;
        if (row >= rows_) continue;
        const int k = chunk * kChunk + (s * kGroups + group_) * kGroupElements;
        const std::int64_t block = (first_row_ + row) * blocks_a_row_ + (k >> block_shift_);
        if (scales_.absmax != nullptr) {
          absmax_[s][half] = scales_.absmax[block];
        } else {
          codes_[s][half] = scales_.absmax_codes[block];
          absmax_[s][half] = scales_.nested_absmax[block / kNestedBlocksize];
        }
      }
    }
  }

  /// Of the segment's next row tile, whose tile is in this stage.
  __device__ __forceinline__ void decode(float (&scale)[kSums][2], const SharedMemory& shared, int stage) {
    const float* const map = shared.nested_map + threadIdx.x % kMapCopies;
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t code = codes_[s][half];
        float absmax = absmax_[s][half];
        if constexpr (kStaged) {
          code = shared.absmax_codes[stage][half][0][place_[s]];
          const unsigned block = block_ + half * kHalfRows * blocks_a_row_ + s * kGroups;
          absmax = shared.nested_absmax[block / kNestedBlocksize % kNestedStaged];
        } else if (scales_.absmax != nullptr) {
          scale[s][half] = absmax;
          continue;
        }
        scale[s][half] = nested_scale(map[code * kMapCopies], absmax, offset_);
      }
    }
    block_ += kTileRows * blocks_a_row_;
  }

 private:
  __device__ __forceinline__ void stage_map(SharedMemory& shared) {
    offset_ = 0.0F;
    if (scales_.absmax != nullptr) return;
    offset_ = *scales_.offset;
    if (threadIdx.x >= 256) return;
    const float value = scales_.nested_map[threadIdx.x];
#pragma unroll
    for (int copy = 0; copy < kMapCopies; ++copy) shared.nested_map[threadIdx.x * kMapCopies + copy] = value;
  }

  __device__ __forceinline__ void stage_nested_absmax(SharedMemory& shared, int teams, std::int64_t out_features) {
    const std::int64_t end =
        min(static_cast<std::int64_t>(shared.first_unit[teams]) * kHalfRows, out_features) * blocks_a_row_;
    first_nested_ = static_cast<std::int64_t>(shared.first_unit[0]) * kHalfRows * blocks_a_row_ / kNestedBlocksize;
    const int count = static_cast<int>((end - 1) / kNestedBlocksize - first_nested_) + 1;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kConsumers) {
      shared.nested_absmax[i] = scales_.nested_absmax[first_nested_ + i];
    }
  }

  BlockScales scales_;
  int block_shift_;
  int blocks_a_row_;
  int row_;    // of a half tile
  int group_;  // of 64 elements, among those of a sum
  std::int64_t first_row_;
  int rows_;
  float offset_;
  std::int64_t first_nested_ = 0;
  int place_[kSums] = {};  // of this lane's codes in a stage
  unsigned block_ = 0;     // of the next row tile's first scale, counted from the first staged nested block
  std::uint32_t codes_[kSums][2] = {};
  float absmax_[kSums][2] = {};
};

}  // namespace qshard::optimized::few_rows

#endif
