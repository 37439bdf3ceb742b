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
    const int copies = task.piece > 0 ? 1 : tiles_.warps_a_row;  // of a half: one of all its chunks, or one a chunk
    const int copy = lane % copies;
    const int half = lane / copies % 2;
    const int team = lane / copies / 2;
    copy_bytes_ = tiles_.warps_a_row / copies * kHalfRows * kChunkBytes;
    if (team < tiles_.teams) {  // otherwise the lane has no row
      row_ = (shared.first_unit[team] + (tiles_.beside ? 0 : half)) * kHalfRows;
      end_ = shared.first_unit[team + 1] * kHalfRows;
      first_chunk_ = tiles_.beside && half == 1 ? tiles_.warps_a_row + copy : copy;
      place_ = half * tiles_.half_bytes() + (team * tiles_.warps_a_row + copy) * kHalfRows * kChunkBytes;
      // Halves beside each other have their absmax codes in one box.
      copies_scales_ = !tiles_.beside || half == 0;
      scales_place_ = tiles_.codes_bytes() + (team * tiles_.tile_rows() + half * kHalfRows) * task.scale_layout.pitch;
    }
  }

  __device__ void copy_tiles() {
    Stage stage;
    for (int begin = 0; begin < tiles_.row_tiles; begin += tiles_.batch) {
      for (int chunk = 0; chunk < tiles_.chunks; chunk += tiles_.segment_chunks()) {
        for (int row_tile = begin; row_tile < min(begin + tiles_.batch, tiles_.row_tiles); ++row_tile) {
          copy_tile(stage, row_tile, chunk);
          stage.advance();
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void copy_tile(const Stage& stage, int row_tile, int chunk) {
    const int own_chunk = chunk + first_chunk_;
    const int row = row_ + row_tile * tiles_.tile_rows();
    const bool held = row < end_ && own_chunk < tiles_.chunks;
    int bytes = __popc(__ballot_sync(0xFFFFFFFFU, held)) * copy_bytes_;
    if (kSource == ScaleSource::segment) {
      bytes += __popc(__ballot_sync(0xFFFFFFFFU, held && copies_scales_)) * kHalfRows * task_.scale_layout.pitch;
    }
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
    if (!held) return;
    const std::uint32_t to = copied + stage.stage * 2 * tiles_.half_bytes() + place_;
    if (task_.piece > 0) {
      tma_load(to, codes_, 0, row, own_chunk * kChunk / task_.piece, barrier);
    } else {
      tma_load(to, codes_, own_chunk * kChunkBytes, row, 0, barrier);
    }
    if (kSource == ScaleSource::segment && copies_scales_) {
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
  int copy_bytes_;  // of codes
  int row_ = 0;     // of the first row tile
  int end_ = 0;
  int first_chunk_ = 0;  // of the copy's in a segment
  int place_ = 0;
  bool copies_scales_ = false;
  int scales_place_ = 0;
};

}  // namespace qshard::optimized::few_rows

#endif
