#pragma once

#include <type_traits>

#include "optimized/linear4bit/few_rows/few_rows_chunk.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

// The scales of the sums that a lane makes of its part of a tile: [s][half] is that of sum s of row swizzled_row(g) of
// either half. The kinds of ScaleSource have the same functions. Plain loads: the compiler may move a __ldg() to before
// the wait for earlier kernels.

/// What both kinds know of the lane: its team's rows and its group of 64 elements among those of a sum; and the nested
/// map, which the thread block shares.
template <typename T, int kRows>
class LaneOfScales {
 public:
  static constexpr int kGroups = InputChunk<T, kRows>::kGroups;
  static constexpr int kSums = InputChunk<T, kRows>::kSums;

 protected:
  __device__ __forceinline__ explicit LaneOfScales(const Task<T>& task)
      : scales_(task.scales),
        blocks_a_row_(static_cast<int>(task.in_features >> task.block_shift)),
        team_(static_cast<int>(threadIdx.x) / 32 / task.tiles.warps_a_row),
        row_(swizzled_row(static_cast<int>(threadIdx.x) % 32 / 4)),
        group_(static_cast<int>(threadIdx.x) % 4 * 2 / kColumns<kRows>),
        chunks_apart_(kBeside<kRows> ? task.tiles.warps_a_row : 0),
        first_row_(static_cast<std::int64_t>(task.first_unit(team_)) * kHalfRows) {
    if (scales_.absmax != nullptr) return;
    offset_ = *scales_.offset;
    if (threadIdx.x < 256) map_value_ = scales_.nested_map[threadIdx.x];
  }

  __device__ __forceinline__ void share_map(SharedMemory& shared) const {
    if (scales_.absmax != nullptr || threadIdx.x >= 256) return;
#pragma unroll
    for (int copy = 0; copy < kMapCopies; ++copy) shared.nested_map[threadIdx.x * kMapCopies + copy] = map_value_;
  }

  __device__ __forceinline__ float scale_of(const SharedMemory& shared, std::uint32_t code, float absmax) const {
    return nested_scale(shared.nested_map[code * kMapCopies + threadIdx.x % kMapCopies], absmax, offset_);
  }

  BlockScales scales_;
  int blocks_a_row_;
  int team_;
  int row_;                                                          // of a half tile
  static constexpr int kRowsApart = kBeside<kRows> ? 0 : kHalfRows;  // the halves of a tile
  int group_;                                                        // of 64 elements, among those of a sum
  int chunks_apart_;                                                 // the halves of a tile
  std::int64_t first_row_;
  float offset_ = 0.0F;
  float map_value_ = 0.0F;
};

/// Each lane loads what it needs, one tile ahead.
template <typename T, int kRows>
class LoadedScales : LaneOfScales<T, kRows> {
  using Lane = LaneOfScales<T, kRows>;

 public:
  __device__ __forceinline__ explicit LoadedScales(const Task<T>& task)
      : Lane(task),
        block_shift_(task.block_shift),
        rows_(static_cast<int>(task.end_row(this->team_ + 1) - this->first_row_)) {
    load(0, static_cast<int>(threadIdx.x) / 32 % task.tiles.warps_a_row);
  }

  /// Every consumer calls it; then they meet.
  __device__ __forceinline__ void share(SharedMemory& shared, int /*threads*/) const { this->share_map(shared); }

  /// Before a segment's first row tile.
  __device__ __forceinline__ void start(const Task<T>& /*task*/, int /*row_tile*/, int /*chunk*/) {}

  /// Requests what decode() takes next; rows past the team's own keep what they had.
  __device__ __forceinline__ void load(int row_tile, int chunk) {
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
      const int first_k = chunk * kChunk + (s * Lane::kGroups + this->group_) * kGroupElements;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_tile * kTileRows<kRows> + half * Lane::kRowsApart + this->row_;
        const int k = first_k + half * this->chunks_apart_ * kChunk;
        if (row >= rows_ || k >> block_shift_ >= this->blocks_a_row_) continue;
        const std::int64_t block = (this->first_row_ + row) * this->blocks_a_row_ + (k >> block_shift_);
        if (this->scales_.absmax != nullptr) {
          absmax_[s][half] = this->scales_.absmax[block];
        } else {
          codes_[s][half] = this->scales_.absmax_codes[block];
          absmax_[s][half] = this->scales_.nested_absmax[block / kNestedBlocksize];
        }
      }
    }
  }

  __device__ __forceinline__ void decode(float (&scale)[Lane::kSums][2], const SharedMemory& shared,
                                         int /*stage*/) const {
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float absmax = absmax_[s][half];
        scale[s][half] = this->scales_.absmax != nullptr ? absmax : this->scale_of(shared, codes_[s][half], absmax);
      }
    }
  }

 private:
  int block_shift_;
  int rows_;
  std::uint32_t codes_[Lane::kSums][2] = {};
  float absmax_[Lane::kSums][2] = {};
};

/// Absmax codes are copied to shared memory, and nested statistics lie there from the start.
template <typename T, int kRows, ScaleSource kSource>
class CopiedScales : LaneOfScales<T, kRows> {
  using Lane = LaneOfScales<T, kRows>;

 public:
  /// Requests the thread block's share of the statistics, which share() stores.
  __device__ __forceinline__ explicit CopiedScales(const Task<T>& task)
      : Lane(task),
        first_block_row_(task.first_unit(0) * kHalfRows),
        first_nested_(static_cast<std::int64_t>(first_block_row_) * this->blocks_a_row_ / kNestedBlocksize),
        codes_bytes_(task.tiles.codes_bytes()),
        pitch_(task.scale_layout.pitch),
        stage_bytes_(task.scale_layout.stage_bytes) {
    const std::int64_t end = task.end_row(task.tiles.teams) * this->blocks_a_row_;
    nested_ = static_cast<int>((end - 1) / kNestedBlocksize - first_nested_) + 1;
    if (threadIdx.x < nested_) nested_value_ = this->scales_.nested_absmax[first_nested_ + threadIdx.x];
  }

  __device__ __forceinline__ void share(SharedMemory& shared, int threads) const {
    this->share_map(shared);
    // One more, for groups past a row's end: their sums are zero, and their scales must be finite.
    if (threadIdx.x <= nested_) shared.nested_absmax[threadIdx.x] = nested_value_;
    for (int i = static_cast<int>(threadIdx.x) + threads; i <= nested_; i += threads) {
      shared.nested_absmax[i] = i < nested_ ? this->scales_.nested_absmax[first_nested_ + i] : 0.0F;
    }
  }

  __device__ __forceinline__ void start(const Task<T>& task, int row_tile, int chunk) {
    const std::int64_t row = this->first_row_ + row_tile * kTileRows<kRows> + this->row_;
    const int block = chunk * kChunkGroups + this->group_;
    block_ = static_cast<unsigned>(row * this->blocks_a_row_ - first_nested_ * kNestedBlocksize) + block;
    int place = static_cast<int>(row - first_block_row_) * pitch_ + block;
    if constexpr (kSource == ScaleSource::segment) {
      place = (this->team_ * kTileRows<kRows> + this->row_) * pitch_ +
              chunk % task.tiles.segment_chunks() * kChunkGroups + this->group_;
    }
    const int half = Lane::kRowsApart * pitch_ + this->chunks_apart_ * kChunkGroups;
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) place_[s] = codes_bytes_ + swizzled(place + s * Lane::kGroups);
    half_place_ = swizzled(place + half) - swizzled(place);
    half_blocks_ = Lane::kRowsApart * this->blocks_a_row_ + this->chunks_apart_ * kChunkGroups;
  }

  __device__ __forceinline__ void load(int /*row_tile*/, int /*chunk*/) const {}

  /// Of the segment's next row tile, whose tile is in this stage.
  __device__ __forceinline__ void decode(float (&scale)[Lane::kSums][2], const SharedMemory& shared, int stage) {
    const unsigned char* const codes = shared.copied + stage * stage_bytes_;
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t code = codes[place_[s] + half * half_place_];
        const unsigned block = block_ + half * half_blocks_ + s * Lane::kGroups;
        scale[s][half] = this->scale_of(shared, code, shared.nested_absmax[block / kNestedBlocksize]);
      }
      if constexpr (kSource == ScaleSource::thread_block) place_[s] += kTileRows<kRows> * pitch_;
    }
    block_ += kTileRows<kRows> * this->blocks_a_row_;
  }

 private:
  /// Where the copy's swizzle puts a byte, which is as wide as a row of 64 or 128 bytes.
  __device__ __forceinline__ int swizzled(int place) const {
    if (kSource != ScaleSource::segment) return place;
    return place ^ (place >> 3 & (pitch_ == 64 ? 0x30 : pitch_ == 128 ? 0x70 : 0));
  }

  int first_block_row_;        // of the thread block
  std::int64_t first_nested_;  // block of its statistics
  int nested_;                 // blocks of them
  float nested_value_ = 0.0F;
  int codes_bytes_;  // what the absmax codes lie behind
  int pitch_;
  int stage_bytes_;
  int place_[Lane::kSums] = {};  // of this lane's code in what is copied
  int half_place_ = 0;           // from there to the second half's
  int half_blocks_ = 0;
  unsigned block_ = 0;  // of the next row tile's first scale, counted from the first staged nested block
};

template <typename T, int kRows, ScaleSource kSource>
using Scales =
    std::conditional_t<kSource == ScaleSource::lane, LoadedScales<T, kRows>, CopiedScales<T, kRows, kSource>>;

}  // namespace qshard::optimized::few_rows

#endif
