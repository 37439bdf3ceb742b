#pragma once

#include <cuda.h>

#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// The producer: copies tile after tile, as far ahead as there are stages. Each copy of a tile is a lane's. What needs
/// no memory it works out when it is made, so that no copy waits for it.
template <typename T, ScaleSource kSource>
class Producer {
 public:
  __device__ __forceinline__ Producer(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& absmax_codes,
                                      SharedMemory& shared)
      : task_(task), tiles_(task.tiles), codes_(codes), absmax_codes_(absmax_codes), shared_(shared) {
    const int half = static_cast<int>(threadIdx.x % 2);
    const int index = static_cast<int>(threadIdx.x % 32 / 2);
    // A copy of a half has all its chunks, or one where rows end within a chunk.
    const int team = task_.pieces > 0 ? index : tiles_.team_of(index);
    const int copy = task_.pieces > 0 ? 0 : index - team * tiles_.warps_a_row;
    copy_bytes_ = (task_.pieces > 0 ? tiles_.warps_a_row : 1) * kHalfRows * kChunkBytes;
    if (kSource == ScaleSource::thread_block) {
      const RowRange rows = task.rows_of_block();
      block_scales_ = task.scales.absmax_codes + static_cast<std::int64_t>(rows.first) * task.scale_layout.pitch;
      block_scales_bytes_ = static_cast<std::uint32_t>((rows.end - rows.first) * task.scale_layout.pitch);
    }
    if (team < tiles_.teams) {  // otherwise the lane has no row
      const RowRange rows = task.rows_of(team);
      row_ = rows.first + (tiles_.beside ? 0 : half * kHalfRows);
      end_ = rows.end;
      first_chunk_ = tiles_.beside && half == 1 ? tiles_.warps_a_row + copy : copy;
      place_ = half * tiles_.half_bytes() + (team * tiles_.warps_a_row + copy) * kHalfRows * kChunkBytes;
      // Halves beside each other have their absmax codes in one box.
      copies_scales_ = !tiles_.beside || half == 0;
      scales_place_ = tiles_.codes_bytes() + (team * tiles_.tile_rows() + half * kHalfRows) * task.scale_layout.pitch;
    }
  }

  /// Waits for earlier kernels when the first tile is under way, unless it has waited before: more tiles in memory's
  /// queue would only hold up x, which is asked for behind that wait and which the first product needs (3 to 5 % of the
  /// time of weights of 35 and 70 MB on an H200).
  __device__ __forceinline__ void copy_tiles() {
    Stage stage;
    bool first = true;
    for (int begin = 0; begin < tiles_.row_tiles; begin += tiles_.batch) {
      for (int chunk = 0; chunk < tiles_.chunks; chunk += tiles_.segment_chunks()) {
        for (int row_tile = begin; row_tile < min(begin + tiles_.batch, tiles_.row_tiles); ++row_tile) {
          copy_tile(stage, row_tile, chunk);
          stage.advance();
          if (first) grid_dependency_synchronize();
          first = false;
        }
      }
    }
  }

 private:
  __device__ __forceinline__ int row_of(int row_tile) const { return row_ + row_tile * tiles_.tile_rows(); }

  /// Whether the lane has a copy in a tile.
  __device__ __forceinline__ bool holds(int row_tile, int chunk) const {
    return row_of(row_tile) < end_ && chunk + first_chunk_ < tiles_.chunks;
  }

  // Where a chunk begins in the map of codes: its byte of a piece, and its piece of a row.
  __device__ __forceinline__ int column_of(int own_chunk) const {
    return task_.pieces == 0 ? own_chunk * kChunkBytes : 0;
  }
  __device__ __forceinline__ int piece_of(int own_chunk) const { return own_chunk * task_.pieces; }

  __device__ __forceinline__ void copy_tile(const Stage& stage, int row_tile, int chunk) {
    const int own_chunk = chunk + first_chunk_;
    const int row = row_of(row_tile);
    const bool held = holds(row_tile, chunk);
    int bytes = __popc(__ballot_sync(0xFFFFFFFFU, held)) * copy_bytes_;
    if (kSource == ScaleSource::segment) {
      bytes += __popc(__ballot_sync(0xFFFFFFFFU, held && copies_scales_)) * kHalfRows * task_.scale_layout.pitch;
    }
    const bool first = kSource == ScaleSource::thread_block && row_tile == 0 && chunk == 0;
    if (first) bytes += static_cast<int>(block_scales_bytes_);
    const std::uint32_t barrier = shared_address(&shared_.full[stage.stage]);
    const std::uint32_t copied = shared_address(shared_.copied);
    mbarrier_wait(shared_address(&shared_.empty[stage.stage]), stage.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      mbarrier_arrive_expect_tx(barrier, bytes);
      if (first) {
        bulk_copy(copied + tiles_.codes_bytes(), block_scales_, block_scales_bytes_, barrier);
      }
    }
    if (!held) return;
    const std::uint32_t to = copied + stage.stage * 2 * tiles_.half_bytes() + place_;
    tma_load(to, codes_, column_of(own_chunk), row, piece_of(own_chunk), barrier);
    if (kSource == ScaleSource::segment && copies_scales_) {
      tma_load(copied + stage.stage * task_.scale_layout.stage_bytes + scales_place_, absmax_codes_,
               chunk * kChunkGroups, row, barrier);
    }
  }

  const Task<T>& task_;
  const Tiles& tiles_;
  const CUtensorMap& codes_;
  const CUtensorMap& absmax_codes_;
  SharedMemory& shared_;
  int copy_bytes_;  // of codes
  int row_ = 0;     // of the first row tile
  int end_ = 0;
  int first_chunk_ = 0;  // of the copy's in a segment
  int place_ = 0;
  bool copies_scales_ = false;
  int scales_place_ = 0;
  // The thread block's absmax codes, where they are copied at once.
  const std::uint8_t* block_scales_ = nullptr;
  std::uint32_t block_scales_bytes_ = 0;
};

}  // namespace qshard::optimized::few_rows

#endif
