#pragma once

#include <cuda.h>

#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// The producer: copies tile after tile, as far ahead as there are stages. Each copy of a tile is a lane's.
template <typename T, ScaleSource kSource>
class Producer {
 public:
  __device__ Producer(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& absmax_codes,
                      SharedMemory& shared)
      : task_(task), tiles_(task.tiles), codes_(codes), absmax_codes_(absmax_codes), shared_(shared) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    copies_ = task.piece > 0 ? 1 : tiles_.warps_a_row;
    copy_ = lane % copies_;
    const int half = lane / copies_ % 2;
    const int team = lane / copies_ / 2;
    if (team < tiles_.teams) {  // otherwise the lane has no row
      row_ = (shared.first_unit[team] + half) * kHalfRows;
      end_ = shared.first_unit[team + 1] * kHalfRows;
      place_ = half * tiles_.half_bytes() + (team * tiles_.warps_a_row + copy_) * kHalfRows * kChunkBytes;
      scales_place_ = tiles_.codes_bytes() + (team * kTileRows + half * kHalfRows) * task.scale_layout.pitch;
    }
  }

  __device__ void copy_tiles() {
    Stage stage;
    for (int begin = 0; begin < tiles_.row_tiles; begin += tiles_.batch) {
      for (int chunk = 0; chunk < tiles_.chunks; chunk += tiles_.warps_a_row) {
        for (int row_tile = begin; row_tile < min(begin + tiles_.batch, tiles_.row_tiles); ++row_tile) {
          copy_tile(stage, row_tile, chunk);
          stage.advance();
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void copy_tile(const Stage& stage, int row_tile, int chunk) {
    const int chunks = min(tiles_.warps_a_row, tiles_.chunks - chunk);
    const int row = row_ + row_tile * kTileRows;
    const bool held = row < end_;
    const int halves = __popc(__ballot_sync(0xFFFFFFFFU, held && copy_ == 0));
    int bytes = halves * kHalfRows * (task_.piece > 0 ? tiles_.warps_a_row : chunks) * kChunkBytes;
    if (kSource == ScaleSource::segment) bytes += halves * kHalfRows * task_.scale_layout.pitch;
    const bool first = kSource == ScaleSource::thread_block && row_tile == 0 && chunk == 0;
    if (first) bytes += block_scales();
    const std::uint32_t barrier = shared_address(&shared_.full[stage.stage]);
    const std::uint32_t copied = shared_address(shared_.copied);
    mbarrier_wait(shared_address(&shared_.empty[stage.stage]), stage.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      mbarrier_arrive_expect_tx(barrier, bytes);
      if (first) {
        bulk_copy(copied + tiles_.codes_bytes(),
                  task_.scales.absmax_codes +
                      static_cast<std::int64_t>(shared_.first_unit[0]) * kHalfRows * task_.scale_layout.pitch,
                  static_cast<std::uint32_t>(block_scales()), barrier);
      }
    }
    if (!held || copy_ >= chunks) return;
    const std::uint32_t to = copied + stage.stage * 2 * tiles_.half_bytes() + place_;
    if (task_.piece > 0) {
      tma_load(to, codes_, 0, row, chunk * kChunk / task_.piece, barrier);
    } else {
      tma_load(to, codes_, (chunk + copy_) * kChunkBytes, row, 0, barrier);
    }
    if constexpr (kSource == ScaleSource::segment) {
      tma_load(copied + stage.stage * task_.scale_layout.stage_bytes + scales_place_, absmax_codes_,
               chunk * kChunkGroups, row, barrier);
    }
  }

  /// Bytes of the thread block's absmax codes.
  __device__ int block_scales() const {
    return (shared_.first_unit[tiles_.teams] - shared_.first_unit[0]) * kHalfRows * task_.scale_layout.pitch;
  }

  const Task<T>& task_;
  const Tiles& tiles_;
  const CUtensorMap& codes_;
  const CUtensorMap& absmax_codes_;
  SharedMemory& shared_;
  int copies_;  // of a half: one of all chunks of the segment, or one a chunk
  int copy_;
  int row_ = 0;  // of the first row tile
  int end_ = 0;
  int place_ = 0;
  int scales_place_ = 0;
};

}  // namespace qshard::optimized::few_rows

#endif
