#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/cluster/line_scale.cuh"
#include "optimized/linear4bit/cluster/line_values.cuh"
#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/middle_rows/middle_rows_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/uniform.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::middle_rows {

/// Sets the barriers up, by one thread. A stage is full when the input has arrived, a team has written half of the
/// weight and the other thread block's copies of the other half have arrived, and empty when the warps of both thread
/// blocks have read it.
template <int kColumns>
__device__ __forceinline__ void init_barriers(const SharedMemory<kColumns>& shared) {
  using Shared = SharedMemory<kColumns>;
  for (int stage = 0; stage < Shared::kStages; ++stage) {
    mbarrier_init(shared.full(stage), 1 + kTeamWarps);
    mbarrier_init(shared.empty(stage), kCluster * kMultiplierWarps);
  }
  for (int stage = 0; stage < Shared::kAllCodeStages; ++stage) mbarrier_init(shared.codes_full(0, stage), 1);
  mbarrier_init_fence();
}

/// A warp's part: of every step of its team 32 lines of the weight, a line a thread, from codes to the stages of both
/// thread blocks. A thread of each warp copies the codes to shared memory, and one of each team the input.
template <typename T, bool kForward, int kColumns, bool kNested>
class Dequantizer {
 public:
  __device__ __forceinline__ Dequantizer(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& input,
                                         const SharedMemory<kColumns>& shared)
      : task_(task),
        codes_map_(codes),
        input_map_(input),
        shared_(shared),
        warp_(uniform(static_cast<int>(threadIdx.x) / 32 - kMultiplierWarps)),
        steps_(task.order.steps_of(static_cast<int>(blockIdx.x) / kCluster, task.tiles)),
        rank_(cluster_rank()),
        lane_(static_cast<int>(threadIdx.x) % 32),
        line_(kForward ? cluster::forward_line(lane_) : lane_),
        first_line_(rank_ * kLines + warp_ % kTeamWarps * 32),
        at_(turn(warp_ / kTeamWarps)),
        scale_at_(at_),
        codes_at_(at_),
        blocks_a_row_(task.in_features >> task.block_shift),
        input_row_(input_row()),
        codes_feature_(task.first_feature(at_.segment.tile, kTileFeatures)),
        first_block_(first_block()),
        scale_(task.scales, shared.map()) {
    asm("" : "+r"(lane_));  // kept, not computed again
  }

  /// When the barriers are set up. What needs no memory is done before the wait for earlier kernels.
  __device__ __forceinline__ void run() {
    int block = next_block();
    scale_.prefetch(block);
    const int code_row = kForward ? cluster::feature_of_line(line_) : line_;
    std::uint32_t own_codes = shared_.codes(warp_, 0) + code_row * 32 + code_row / 4 % 2 * 16;
    std::uint32_t own_line = shared_.weight(0) + (first_line_ + line_) * kLineBytes + line_ % 8 * 16;
    asm volatile("" : "+r"(own_codes), "+r"(own_line), "+r"(block));  // made before the wait
    grid_dependency_synchronize();
    if (lane_ == 0) {
      for (int stage = 0; stage < Shared::kCodeStages; ++stage) load_codes(stage);
    }
    scale_.begin();
    scale_.ask_first(block);
    scale_.template fill_map<Shared::kThreads - kMultipliers>(task_.scales, shared_.map());
    StageCounter<Shared::kCodeStages> codes_stage;
    StageCounter<Shared::kStages> stage;
    for (int i = 0; i < warp_ / kTeamWarps; ++i) stage.advance();
#pragma unroll 1
    while (at_.number < steps_) {
      const float scale = scale_.asked();
      mbarrier_wait(shared_.codes_full(warp_, codes_stage.stage), codes_stage.parity);
      const std::uint32_t from = own_codes + codes_stage.stage * Shared::kCodeBytes;
      const uint4 first = load_shared_u32x4(from);
      const uint4 second = load_shared_u32x4(from ^ 16);
      const SixteenValues values = cluster::scaled_codebook<T>(task_.codebook, scale);
      mbarrier_wait(shared_.empty(stage.stage), stage.parity ^ 1);
      if (warp_ % kTeamWarps == 0 && lane_ == 0) load_input(stage.stage);
      const std::uint32_t to = own_line + stage.stage * Shared::kStageBytes;
      cluster::write_two_units<kForward>(to, to ^ 16, values, first.x, first.y);
      cluster::write_two_units<kForward>(to ^ 32, to ^ 48, values, first.z, first.w);
      cluster::write_two_units<kForward>(to ^ 64, to ^ 80, values, second.x, second.y);
      cluster::write_two_units<kForward>(to ^ 96, to ^ 112, values, second.z, second.w);
      scale_.ask(next_block());
      if (advance(at_)) input_row_ = input_row();
      fence_proxy_async_shared();
      __syncwarp();
      if (lane_ == 0) {
        share_lines(stage.stage);
        load_codes(codes_stage.stage);
      }
      codes_stage.advance();
#pragma unroll
      for (int i = 0; i < kTeams; ++i) stage.advance();
    }
    __syncwarp();
  }

 private:
  using Shared = SharedMemory<kColumns>;
  static constexpr int kTeams = Shared::kTeams;

  /// A step of the cluster, and the segment that it lies in.
  struct Turn {
    int number;
    Segment segment;

    [[nodiscard]] __device__ __forceinline__ int step() const { return number - segment.begin + segment.first_step; }
  };

  [[nodiscard]] __device__ __forceinline__ Turn turn(int number) const {
    return {number, task_.order.segment(static_cast<int>(blockIdx.x) / kCluster, min(number, steps_ - 1))};
  }

  /// Goes on to the warp's next turn; returns whether it is in another tile. Behind the last turn it stays in that
  /// one's.
  __device__ __forceinline__ bool advance(Turn& at) const {
    at.number += kTeams;
    if (at.number < at.segment.end || at.segment.end == steps_) return false;
    at = turn(at.number);
    return true;
  }

  /// A thread's part: copies the codes of the warp's next turn, if there is one.
  __device__ __forceinline__ void load_codes(int stage) {
    if (codes_at_.number >= steps_) return;
    const std::uint32_t full = shared_.codes_full(warp_, stage);
    const int feature = codes_feature_ + (kForward ? first_line_ : rank_ * kLines);
    const int inner = codes_at_.step() * kStep + (kForward ? 0 : first_line_ % kLines);
    mbarrier_arrive_expect_tx(full, Shared::kCodeBytes);
    tma_load(shared_.codes(warp_, stage), codes_map_, (kForward ? inner : feature) / 2, kForward ? feature : inner,
             full);
    if (advance(codes_at_)) codes_feature_ = task_.first_feature(codes_at_.segment.tile, kTileFeatures);
  }

  /// A thread's part: copies the input, and says what else will arrive.
  __device__ __forceinline__ void load_input(int stage) const {
    const std::uint32_t full = shared_.full(stage);
    mbarrier_arrive_expect_tx(full, Shared::kInputBytes + kLines * kLineBytes);
    tma_load(shared_.input(stage), input_map_, at_.step() * (kStep * 2), input_row_, full);
  }

  /// A thread's part: copies the warp's lines to the other thread block, and says that they are written here.
  __device__ __forceinline__ void share_lines(int stage) const {
    const std::uint32_t full = shared_.full(stage);
    mbarrier_arrive(full);
    bulk_copy_to_cluster(shared_.weight(stage) + first_line_ * kLineBytes, 32 * kLineBytes, full, rank_ ^ 1);
  }

  /// The first row of the input that this thread block multiplies by.
  [[nodiscard]] __device__ __forceinline__ int input_row() const {
    return (at_.segment.tile % task_.column_tiles * kCluster + rank_) * kColumns;
  }

  /// Forward: the first block of the line's row of the weight; gradient: the block of a row that the line lies in.
  [[nodiscard]] __device__ __forceinline__ int first_block() const {
    const int first_feature = task_.first_feature(scale_at_.segment.tile, kTileFeatures);
    if constexpr (kForward) {
      const int row = min(first_feature + first_line_ + cluster::feature_of_line(line_), task_.out_features - 1);
      return row * blocks_a_row_;
    } else {
      return min(first_feature + rank_ * kLines, task_.in_features - 1) >> task_.block_shift;
    }
  }

  /// The line's block in the warp's next turn. There may be none: the places are clamped.
  [[nodiscard]] __device__ __forceinline__ int next_block() {
    const int inner = scale_at_.step() * kStep;
    int block = first_block_;
    if constexpr (kForward) {
      block += min(inner, task_.in_features - 1) >> task_.block_shift;
    } else {
      block += min(inner + first_line_ % kLines + line_, task_.out_features - 1) * blocks_a_row_;
    }
    if (advance(scale_at_)) first_block_ = first_block();
    return block;
  }

  const Task<T>& task_;
  const CUtensorMap& codes_map_;
  const CUtensorMap& input_map_;
  const SharedMemory<kColumns>& shared_;
  int warp_;   // of those that dequantize
  int steps_;  // of the cluster
  int rank_;
  int lane_;
  int line_;        // of the warp's 32
  int first_line_;  // of the warp
  Turn at_;
  Turn scale_at_;  // whose scale is asked for next
  Turn codes_at_;  // whose codes are copied next
  int blocks_a_row_;
  int input_row_;      // of at_
  int codes_feature_;  // the first one of codes_at_'s tile
  int first_block_;    // of scale_at_'s tile
  cluster::LineScale<kNested> scale_;
};

}  // namespace qshard::optimized::middle_rows

#endif
