#pragma once

#include <cstdint>

#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/linear4bit/warpgroup/shared_sums.cuh"
#include "optimized/linear4bit/warpgroup/span_scales.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::warpgroup {

/// A warp's part of the product: 16 rows of every tile. Each lane turns its codes into the registers of a weight tile
/// by table look-ups; x is multiplied from shared memory; the sum over a chunk, which lies in one block, gets its scale
/// in float.
template <typename T, int kColumnTiles>
class Multiplier {
 public:
  __device__ __forceinline__ Multiplier(const Task<T>& task, const SharedMemory<kColumnTiles>& shared, int begin,
                                        int end)
      : task_(task),
        shared_(shared),
        at_(task.split, begin),
        left_(end - begin),
        lane_(static_cast<int>(threadIdx.x) % 32),
        table_(shared.table),
        // The rows of eight lane groups in an order in which four groups' codes lie in different banks.
        own_row_(static_cast<int>(threadIdx.x) / 32 * 16 + lane_ / 8 % 2 * 4 + lane_ / 16 * 2 + lane_ / 4 % 2),
        own_codes_(shared.stage(0) + own_row_ * (kStep / 2) + ((lane_ % 4 / 2) ^ (own_row_ / 2 % 4)) * 16 +
                   lane_ % 2 * 8),
        scales_(task, shared.map() + 4 * (lane_ % kMapCopies),
                shared.scales(static_cast<int>(threadIdx.x) / 32) + lane_ / 4 * sizeof(float4)) {
    scales_.load(at_.tile * kTileRows + own_row_, at_.step);
    asm("" : "+r"(lane_), "+r"(own_codes_));  // kept, not computed again
  }

  /// When shared memory is ready.
  __device__ __forceinline__ void run() {
    mbarrier_wait(shared_.full(0), 0);
    load_codes();
    look_up_chunk(0);
    while (left_ > 0) {
      const int first_step = at_.step;
      const int end_step = min(task_.split.steps, first_step + left_);
      multiply_tile(end_step);
      if (end_step - first_step == task_.split.steps) {
        store_sums<T, kColumnTiles>(task_, sums_, at_.tile, own_row_);
      } else {
        share_sums<T, kColumnTiles>(task_, sums_, at_.tile, own_row_);
      }
      ++at_.tile;
      at_.step = 0;
    }
  }

 private:
  using Shared = SharedMemory<kColumnTiles>;
  __device__ __forceinline__ void multiply_tile(int end_step) {
#pragma unroll
    for (float& sum : sums_) sum = 0.0F;
    while (at_.step < end_step) {
      scales_.decode();
      const int next = (at_.step / kSpanSteps + 1) * kSpanSteps;
      const bool same_tile = next < task_.split.steps;
      scales_.load((same_tile ? at_.tile : at_.tile + 1) * kTileRows + own_row_, same_tile ? next : 0);
      int steps = min(next, end_step) - at_.step;
      asm("" : "+r"(steps));  // kept, not computed again
#pragma unroll 1
      for (; steps > 0; --steps, ++at_.step) multiply_step();
    }
  }

  /// Chunk 0 has been looked up. While the matrix unit works on a chunk, the next one is looked up.
  __device__ __forceinline__ void multiply_step() {
    const float4 scale = scales_.get(at_.step);
    const int stage = counter_.stage;
    counter_.advance();
    const bool more = --left_ > 0;
    start_chunk(stage, 0);
    look_up_chunk(1);
    start_chunk(stage, 1);
    if (more) {
      mbarrier_wait(shared_.full(counter_.stage), counter_.parity);
      load_codes();
    }
    add_chunk<1>(0, scale.x, scale.y);
    if (more) look_up_chunk(0);
    add_chunk<0>(1, scale.z, scale.w);
    if (lane_ == 0) mbarrier_arrive(shared_.empty(stage));
  }

  __device__ __forceinline__ void start_chunk(int stage, int chunk) {
    const std::uint64_t x = matrix_descriptor(shared_.stage(0) + Shared::kCodeBytes) +
                            (stage * Shared::kStageBytes + chunk * Shared::kChunkBytes) / 16;
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < kInstructions; ++s) {
      wgmma<T>(block_[chunk], weights_[chunk][s], x + s * Shared::kInstructionBytes / 16, s > 0);
    }
    wgmma_commit();
  }

  /// Adds the chunk's sums, scaled, when at most kPending chunks are under way. low, high: of rows g and g + 8.
  template <int kPending>
  __device__ __forceinline__ void add_chunk(int chunk, float low, float high) {
    auto& block = block_[chunk];
    wgmma_wait<kPending>(block);
#pragma unroll
    for (int i = 0; i < 4 * kColumnTiles; ++i) sums_[i] += (i / 2 % 2 == 0 ? low : high) * block[i];
  }

  /// Of the stage that is next.
  __device__ __forceinline__ void load_codes() {
    const std::uint32_t at = own_codes_ + counter_.stage * Shared::kStageBytes;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        codes_[chunk][half] = load_shared_u32x2((at ^ 32 * chunk) + half * (8 * kStep / 2));
      }
    }
  }

  /// Registers of an instruction: the lower pair of rows g and g + 8, then the upper one.
  __device__ __forceinline__ void look_up_chunk(int chunk) {
#pragma unroll
    for (int s = 0; s < kInstructions; ++s) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const uint2& row = codes_[chunk][r % 2];
        weights_[chunk][s][r] = table_(s < 2 ? row.x : row.y, 2 * (s % 2) + r / 2);
      }
    }
  }

  const Task<T>& task_;
  const SharedMemory<kColumnTiles>& shared_;
  Place at_;
  int left_;  // steps
  int lane_;
  PairTable table_;
  int own_row_;  // g of the tile's rows
  std::uint32_t own_codes_;
  SpanScales<Task<T>, 8> scales_;
  StageCounter<Shared::kStages> counter_;
  uint2 codes_[kChunks][2];
  std::uint32_t weights_[kChunks][kInstructions][4];
  float sums_[4 * kColumnTiles];
  float block_[kChunks][4 * kColumnTiles];
};

}  // namespace qshard::optimized::warpgroup

#endif
