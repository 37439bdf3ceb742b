#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/segment_end.cuh"
#include "optimized/linear4bit/middle_rows/middle_rows_tiles.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/uniform.cuh"
#include "optimized/ptx/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::middle_rows {

/// A warpgroup's part of the product: 64 features of every tile, which are rows of its matrix instructions.
template <typename T, bool kForward, int kColumns>
class Multiplier {
 public:
  __device__ __forceinline__ Multiplier(const Task<T>& task, const SharedMemory<kColumns>& shared)
      : task_(task),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % 32),
        weight_(swizzled_matrix_descriptor(shared.weight(0) + warpgroup_index() * (kTileFeatures / 2 * kLineBytes))),
        input_(swizzled_matrix_descriptor(shared.input(0))) {}

  /// When the barriers are set up and earlier kernels are done.
  __device__ __forceinline__ void run() {
    const int own_cluster = static_cast<int>(blockIdx.x) / kCluster;
    const int all = task_.order.steps_of(own_cluster, task_.tiles);
    for (int number = 0; number < all;) {
      const Segment segment = task_.order.segment(own_cluster, number);
      number = segment.end;
      int steps = segment.end - segment.begin;
      asm("" : "+r"(steps));  // kept, not computed again
      multiply_step(false);
      ready_.tell(task_, cluster_rank());
#pragma unroll 1
      for (int step = 1; step < steps; ++step) {
        const int last_stage = stage_.stage;
        stage_.advance();
        multiply_step(true);
        wgmma_wait<1>();
        release(last_stage);
      }
      const int rank = cluster_rank();
      const cluster::SegmentEnd end(task_, segment, (segment.tile % task_.column_tiles * kCluster + rank) * kColumns,
                                    task_.first_feature(segment.tile, kTileFeatures), rank);
      end.wait_ahead();
      wgmma_wait<0>(sums_);
      release(stage_.stage);
      stage_.advance();
      ready_ = end.finish(sums_);
    }
    ready_.tell(task_, cluster_rank());
  }

 private:
  using Shared = SharedMemory<kColumns>;
  /// From one matrix instruction of a step to the next: 16 elements of each line, or 16 lines.
  static constexpr std::uint32_t kWeightAdvance = kForward ? 32 : 16 * kLineBytes;

  /// Puts a step's instructions behind those of the step before.
  __device__ __forceinline__ void multiply_step(bool add) {
    mbarrier_wait(shared_.full(stage_.stage), stage_.parity);
    const std::uint64_t weight = weight_ + stage_.stage * (Shared::kStageBytes / 16);
    const std::uint64_t input = input_ + stage_.stage * (Shared::kStageBytes / 16);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
      wgmma_shared<T, !kForward>(sums_, weight + kWeightAdvance / 16 * i, input + 2 * i, add || i > 0);
    }
    wgmma_commit();
  }

  /// Tells both thread blocks that this warp has read the stage.
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();
    if (lane_ < kCluster) mbarrier_arrive_cluster(shared_.empty(stage), lane_);
  }

  const Task<T>& task_;
  const SharedMemory<kColumns>& shared_;
  int lane_;
  std::uint64_t weight_;  // descriptors of the first stage
  std::uint64_t input_;
  StageCounter<Shared::kStages> stage_;
  cluster::ReadySums ready_;  // of the segment before
  float sums_[kColumns / 2];
};

}  // namespace qshard::optimized::middle_rows

#endif
