#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda.h>

#include "optimized/many_rows_operand.cuh"
#include "optimized/many_rows_tiles.cuh"
#include "optimized/shared_access.cuh"
#include "optimized/tensor_copy.cuh"
#include "optimized/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized {

/// A warpgroup's part: 64 columns of each tile. While the matrix unit multiplies a step, and the other warpgroup's, the
/// next step's weight is dequantized into registers.
template <typename T, bool kForward>
class ManyRowsMultiplier {
 public:
  __device__ __forceinline__ ManyRowsMultiplier(const ManyRowsTask& task, const CUtensorMap& output,
                                                const ManyRowsShared& shared)
      : task_(task),
        output_(output),
        shared_(shared),
        operand_(shared.table()),
        warpgroup_(__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0)),
        lane_(static_cast<int>(threadIdx.x) % 32),
        rank_(cluster_rank()) {
    asm("" : "+r"(lane_), "+r"(rank_));  // kept, not computed again
  }

  __device__ __forceinline__ void run() {
    const int clusters = static_cast<int>(gridDim.x) / kCluster;
    left_ = task_.all_steps();
    int steps = task_.steps;
    asm("" : "+r"(steps));  // kept in a register
    look_up();
    operand_.rebuild(weights_[0]);
    for (int tile = static_cast<int>(blockIdx.x) / kCluster; tile < task_.tiles(); tile += clusters) {
      for (int step = 0; step < steps; step += 2) {
        multiply_step<0>(step == 0);
        multiply_step<1>(false);
      }
      warpgroup_wait<0>(sums_);
      hold_operands(weights_[1], left_);
      release(last_stage_);
      store(ManyRowsPlace(task_, tile));
    }
    if (threadIdx.x % 128 == 0) wait_for_stores();
  }

 private:
  /// Asks for the centroids of the stage that is next.
  __device__ __forceinline__ void look_up() {
    barrier_wait(shared_.full(at_.stage), at_.parity);
    operand_.load(shared_.codes(at_.stage), shared_.scales(at_.stage));
    operand_.look_up();
  }

  /// Puts a step's instructions behind those of the step before; while they run, waits for that one and dequantizes the
  /// next.
  template <int kBuffer>
  __device__ __forceinline__ void multiply_step(bool first) {
    const int stage = at_.stage;
    start_step<kBuffer>(!first);
    at_.advance();
    --left_;
    if (left_ > 0) look_up();
    warpgroup_wait<1>();
    hold_operands(weights_[1 - kBuffer], left_);
    if (!first) release(last_stage_);
    last_stage_ = stage;
    if (left_ > 0) operand_.rebuild(weights_[1 - kBuffer]);
  }

  template <int kBuffer>
  __device__ __forceinline__ void start_step(bool add) {
    const std::uint64_t input = swizzled_matrix_descriptor(shared_.input(at_.stage));
    warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
      warpgroup_multiply<T>(sums_, weights_[kBuffer][i], input + 2 * i, add || i > 0);
    }
    warpgroup_commit();
  }

  /// Tells both thread blocks' loaders that this warp has read the stage.
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();
    if (lane_ >= kCluster) return;
    if (lane_ == rank_) {
      barrier_arrive(shared_.empty(stage));
    } else {
      barrier_arrive_at(shared_.empty(stage), lane_);
    }
  }

  /// Half of the rows at a time, through shared memory in the copy's 128-byte swizzle.
  __device__ __forceinline__ void store(const ManyRowsPlace& place) {
    constexpr int kRows = ManyRowsShared::kOutputRows;
    const int quarter = static_cast<int>(threadIdx.x) % 4;
    const int piece = operand_.column() / 8;  // of 16 bytes
    const std::uint32_t room = shared_.output(warpgroup_);
    const int column = place.column + rank_ * kTileColumns + warpgroup_ * kGroupColumns;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (threadIdx.x % 128 == 0) wait_for_reads_of_stores();
      warpgroup_meets();
#pragma unroll
      for (int i = 0; i < kRows / 8; ++i) {
        const float* const sums = sums_ + (half * (kRows / 8) + i) * 4;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int row = 2 * quarter + j;
          store_shared(room + (8 * i + row) * 128 + (piece ^ row) * 16 + operand_.column() % 8 * 2,
                       round_pair<T>(sums[j], sums[2 + j]));
        }
      }
      shared_writes_fence();
      warpgroup_meets();
      if (threadIdx.x % 128 == 0) store_box(output_, column * 2, place.row + half * kRows, room);
    }
  }

  __device__ __forceinline__ void warpgroup_meets() const {
    asm volatile("bar.sync %0, 128;" ::"r"(warpgroup_ + 1) : "memory");
  }

  const ManyRowsTask& task_;
  const CUtensorMap& output_;
  const ManyRowsShared& shared_;
  std::conditional_t<kForward, ForwardOperand<T>, GradientOperand<T>> operand_;
  int warpgroup_;
  int lane_;
  int rank_;
  ManyRowsStage at_;
  ManyRowsRegisters weights_[2];
  int left_;
  int last_stage_ = 0;
  float sums_[kTileRows / 2];
};

}  // namespace qshard::optimized

#endif
