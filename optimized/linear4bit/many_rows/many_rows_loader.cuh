#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/many_rows/many_rows_tiles.cuh"
#include "optimized/linear4bit/many_rows/weight_boxes.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/signals.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized {

/// One thread's part: fills the stages in turn, and says how far it is. Half of each stage's input comes from the
/// cluster's other thread block, which gets the other half from here.
template <bool kForward>
class ManyRowsLoader {
 public:
  __device__ __forceinline__ ManyRowsLoader(const ManyRowsTask& task, const CUtensorMap& weight,
                                            const CUtensorMap& input, const ManyRowsShared& shared)
      : task_(task), weight_(weight), input_(input), shared_(shared), rank_(cluster_rank()) {}

  /// Sets the barriers up. A stage is empty when the warps of both thread blocks have read it.
  __device__ __forceinline__ void start() const {
    prefetch_map(weight_);
    prefetch_map(input_);
    for (int stage = 0; stage < ManyRowsShared::kStages; ++stage) {
      barrier_init(shared_.full(stage), 1);
      barrier_init(shared_.empty(stage), kCluster * kMultiplierWarps);
    }
    barrier_init_fence();
    set_shared(shared_.progress(), 0);
  }

  __device__ __forceinline__ void run() const {
    constexpr int kDone = 1 << 30;  // so that all of the weight's pieces are due
    ManyRowsStage at;
    int first_step = 0;
    for (int tile = static_cast<int>(blockIdx.x) / kCluster; tile < task_.tiles(); tile += task_.clusters()) {
      const ManyRowsPlace place(task_, tile);
      for (int step = 0; step < task_.steps; ++step, at.advance()) {
        if (step % kBoxSteps == 0) {
          set_shared(shared_.progress(), first_step + step);
          wait_for_signals(WeightBox{place.column / kBox, step / kBoxSteps}.done(task_), kPieces);
        }
        barrier_wait(shared_.empty(at.stage), at.parity ^ 1);
        load(place, step, at.stage);
      }
      first_step += task_.steps;
    }
    set_shared(shared_.progress(), kDone);
  }

 private:
  __device__ __forceinline__ void load(const ManyRowsPlace& place, int step, int stage) const {
    const std::uint32_t full = shared_.full(stage);
    barrier_expect(full, ManyRowsShared::kStageBytes);
    copy_box_to_all(shared_.input(stage) + rank_ * ManyRowsShared::kHalfInputBytes, input_, step * kStep * 2,
                    place.row + rank_ * (kTileRows / kCluster), full, (1 << kCluster) - 1);
    const int column = place.column + rank_ * kTileColumns;
    if constexpr (kForward) {
      copy_box(shared_.weight(stage, 0), weight_, step * kStep * 2, column, full);
    } else {
#pragma unroll
      for (int group = 0; group < kWarpgroups; ++group) {
        copy_box(shared_.weight(stage, group), weight_, (column + group * kGroupColumns) * 2, step * kStep, full);
      }
    }
  }

  const ManyRowsTask& task_;
  const CUtensorMap& weight_;
  const CUtensorMap& input_;
  const ManyRowsShared& shared_;
  int rank_;
};

}  // namespace qshard::optimized

#endif
