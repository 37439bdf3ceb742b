#pragma once

#include <type_traits>

#include "optimized/linear4bit/few_rows/few_rows_chunk.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"

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
  __device__ __forceinline__ LaneOfScales(const Task<T>& task, const SharedMemory& shared, int team)
      : scales_(task.scales),
        blocks_a_row_(task.blocks_a_row),
        rows_(task.rows_of(team)),
        row_(swizzled_row(static_cast<int>(threadIdx.x % 32 / 4))),
        group_(static_cast<int>(threadIdx.x % 4 * 2 / kColumns<kRows>)),
        chunks_apart_(kBeside<kRows> ? task.tiles.warps_a_row : 0),
        map_(shared_address(shared.nested_map + threadIdx.x % kMapCopies)) {}

  __device__ __forceinline__ void request_map() {
    offset_ = *scales_.offset;
    if (threadIdx.x < 256) map_value_ = scales_.nested_map[threadIdx.x];
  }

  __device__ __forceinline__ void share_map(SharedMemory& shared) const {
    if (threadIdx.x >= 256) return;
#pragma unroll
    for (int copy = 0; copy < kMapCopies; ++copy) shared.nested_map[threadIdx.x * kMapCopies + copy] = map_value_;
  }

  __device__ __forceinline__ float scale_of(std::uint32_t code, float absmax) const {
    const std::uint32_t value = load_shared_u32(map_ + code * kMapCopies * sizeof(float));
    return nested_scale(__uint_as_float(value), absmax, offset_);
  }

  BlockScales scales_;
  int blocks_a_row_;
  RowRange rows_;                                                    // the team's
  int row_;                                                          // of a half tile
  static constexpr int kRowsApart = kBeside<kRows> ? 0 : kHalfRows;  // the halves of a tile
  int group_;                                                        // of 64 elements, among those of a sum
  int chunks_apart_;                                                 // the halves of a tile
  std::uint32_t map_;                                                // address of the lane's copy of the nested map
  float offset_ = 0.0F;
  float map_value_ = 0.0F;
};

/// Each lane loads what it needs, one tile ahead.
template <typename T, int kRows>
class LoadedScales : LaneOfScales<T, kRows> {
  using Lane = LaneOfScales<T, kRows>;

 public:
  __device__ __forceinline__ LoadedScales(const Task<T>& task, const SharedMemory& shared, int team, int /*member*/)
      : Lane(task, shared, team), block_shift_(task.block_shift) {}

  /// Requests what share() stores, and what the first take() takes, of the warp's first chunk.
  __device__ __forceinline__ void request(int chunk) {
    if (this->scales_.nested()) this->request_map();
    load(0, chunk);
  }

  /// Every consumer calls it; then they meet.
  __device__ __forceinline__ void share(SharedMemory& shared, int /*threads*/) const {
    if (this->scales_.nested()) this->share_map(shared);
  }

  /// Before a segment's first row tile, unless that is the first of all.
  __device__ __forceinline__ void start(int /*row_tile*/, int /*chunk*/) {}

  /// Requests what take() takes next; rows past the team's own keep what they had.
  __device__ __forceinline__ void load(int row_tile, int chunk) {
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
      const int first_k = chunk * kChunk + (s * Lane::kGroups + this->group_) * kGroupElements;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_tile * kTileRows<kRows> + half * Lane::kRowsApart + this->row_;
        const int k = first_k + half * this->chunks_apart_ * kChunk;
        if (this->rows_.first + row >= this->rows_.end || k >> block_shift_ >= this->blocks_a_row_) continue;
        const std::int64_t block =
            static_cast<std::int64_t>(this->rows_.first + row) * this->blocks_a_row_ + (k >> block_shift_);
        if (!this->scales_.nested()) {
          absmax_[s][half] = this->scales_.absmax[block];
        } else {
          codes_[s][half] = this->scales_.absmax_codes[block];
          absmax_[s][half] = this->scales_.nested_absmax[block / kNestedBlocksize];
        }
      }
    }
  }

  /// Takes what load() has requested.
  __device__ __forceinline__ void take(const SharedMemory& /*shared*/, int /*stage*/) {
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float absmax = absmax_[s][half];
        scale_[s][half] = this->scales_.nested() ? this->scale_of(codes_[s][half], absmax) : absmax;
      }
    }
  }

  /// The scales of what take() took last.
  __device__ __forceinline__ void decode(float (&scale)[Lane::kSums][2]) const {
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) scale[s][half] = scale_[s][half];
    }
  }

 private:
  int block_shift_;
  std::uint32_t codes_[Lane::kSums][2] = {};
  float absmax_[Lane::kSums][2] = {};
  float scale_[Lane::kSums][2];
};

/// Absmax codes are copied to shared memory, and nested statistics lie there from the start.
template <typename T, int kRows, ScaleSource kSource>
class CopiedScales : LaneOfScales<T, kRows> {
  using Lane = LaneOfScales<T, kRows>;

 public:
  __device__ __forceinline__ CopiedScales(const Task<T>& task, const SharedMemory& shared, int team, int member)
      : Lane(task, shared, team),
        pitch_(task.scale_layout.pitch),
        stage_bytes_(task.scale_layout.stage_bytes),
        half_blocks_(Lane::kRowsApart * this->blocks_a_row_ + this->chunks_apart_ * kChunkGroups) {
    const RowRange rows = task.rows_of_block();
    const std::int64_t end = static_cast<std::int64_t>(rows.end) * this->blocks_a_row_;
    first_nested_ = static_cast<std::int64_t>(rows.first) * this->blocks_a_row_ / kNestedBlocksize;
    nested_ = static_cast<int>((end - 1) / kNestedBlocksize - first_nested_) + 1;
    const int first = kSource == ScaleSource::segment
                          ? (team * kTileRows<kRows> + this->row_) * pitch_ + member * kChunkGroups + this->group_
                          : (this->rows_.first - rows.first + this->row_) * pitch_ + this->group_;
    const int half = Lane::kRowsApart * pitch_ + this->chunks_apart_ * kChunkGroups;
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
      first_[s] = shared_address(shared.copied + task.tiles.codes_bytes() + swizzled(first + s * Lane::kGroups));
    }
    half_place_ = swizzled(first + half) - swizzled(first);
    start(0, member);
  }

  /// Requests the thread block's share of the statistics, which share() stores.
  __device__ __forceinline__ void request(int /*chunk*/) {
    this->request_map();
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

  __device__ __forceinline__ void start(int row_tile, int chunk) {
    const int row = this->rows_.first + row_tile * kTileRows<kRows> + this->row_;
    // Both products may have more than 32 bits, their difference has not.
    block_ = static_cast<unsigned>(row) * static_cast<unsigned>(this->blocks_a_row_) -
             static_cast<unsigned>(first_nested_) * kNestedBlocksize + chunk * kChunkGroups + this->group_;
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
      place_[s] = first_[s];
      if (kSource == ScaleSource::thread_block) {
        place_[s] += row_tile * kTileRows<kRows> * pitch_ + chunk * kChunkGroups;
      }
    }
  }

  __device__ __forceinline__ void load(int /*row_tile*/, int /*chunk*/) const {}

  /// Reads the codes of the segment's next row tile, whose tile is in this stage, and their blocks' absmax.
  __device__ __forceinline__ void take(const SharedMemory& shared, int stage) {
    const int stage_place = stage * stage_bytes_;
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        codes_[s][half] = load_shared_u8(place_[s] + stage_place + half * half_place_);
        const unsigned block = block_ + half * half_blocks_ + s * Lane::kGroups;
        absmax_[s][half] = shared.nested_absmax[block / kNestedBlocksize];
        if (kEarly) absmax_[s][half] = this->scale_of(codes_[s][half], absmax_[s][half]);
      }
      if constexpr (kSource == ScaleSource::thread_block) place_[s] += kTileRows<kRows> * pitch_;
    }
    block_ += kTileRows<kRows> * this->blocks_a_row_;
  }

  /// The scales of what take() read last: the codes are looked up only when the products are there, unless that takes
  /// registers which the next part of x needs.
  __device__ __forceinline__ void decode(float (&scale)[Lane::kSums][2]) const {
#pragma unroll
    for (int s = 0; s < Lane::kSums; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scale[s][half] = kEarly ? absmax_[s][half] : this->scale_of(codes_[s][half], absmax_[s][half]);
      }
    }
  }

 private:
  static constexpr bool kEarly = kBeside<kRows>;

  /// Where the copy's swizzle puts a byte, which is as wide as a row of 64 or 128 bytes.
  __device__ __forceinline__ int swizzled(int place) const {
    if (kSource != ScaleSource::segment) return place;
    return place ^ (place >> 3 & (pitch_ == 64 ? 0x30 : pitch_ == 128 ? 0x70 : 0));
  }

  std::int64_t first_nested_;  // block of the thread block's statistics
  int nested_;                 // blocks of them
  float nested_value_ = 0.0F;
  int pitch_;
  int stage_bytes_;
  int half_blocks_;
  std::uint32_t first_[Lane::kSums];  // addresses of this lane's codes in what is copied: of the first row tile,
                                      // without the chunk where not the segment's but the thread block's are copied
  int half_place_;                    // from a code to the second half's
  std::uint32_t place_[Lane::kSums];  // of the next row tile's
  unsigned block_;                    // of the next row tile's first scale, counted from the first staged nested block
  std::uint32_t codes_[Lane::kSums][2];
  float absmax_[Lane::kSums][2];
};

template <typename T, int kRows, ScaleSource kSource>
using Scales =
    std::conditional_t<kSource == ScaleSource::lane, LoadedScales<T, kRows>, CopiedScales<T, kRows, kSource>>;

}  // namespace qshard::optimized::few_rows

#endif
