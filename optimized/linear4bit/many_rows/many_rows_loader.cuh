#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/many_rows/many_rows_cut.h"
#include "optimized/linear4bit/many_rows/many_rows_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/signals.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::many_rows {

/// One thread's part: fills the stages in turn, and says how far it is. Half of each stage's input comes from the
/// cluster's other thread block, which gets the other half from here.
template <bool kForward, bool kAdapter>
class Loader {
 public:
  __device__ __forceinline__ Loader(const Task& task, const CUtensorMap& weight, const CUtensorMap& input,
                                    const AdapterMaps& adapter, const SharedMemory& shared)
      : task_(task), weight_(weight), input_(input), adapter_(adapter), shared_(shared), rank_(cluster_rank()) {}

  /// Sets the barriers up. A stage is empty when the warps of both thread blocks have read it.
  __device__ __forceinline__ void start() const {
    prefetch_tensor_map(weight_);
    prefetch_tensor_map(input_);
    if constexpr (kAdapter) {
      prefetch_tensor_map(adapter_.matrix);
      prefetch_tensor_map(adapter_.factor);
    }
    for (int stage = 0; stage < SharedMemory::kStages; ++stage) {
      mbarrier_init(shared_.full(stage), 1);
      mbarrier_init(shared_.empty(stage), kCluster * kMultiplierWarps);
    }
    mbarrier_init_fence();
    atomic_store_shared(shared_.progress(), 0);
  }

  __device__ __forceinline__ void run() const {
    constexpr int kAllDue = 1 << 30;  // a step by which all of the weight's pieces are due
    Stage at;
    int done = 0;  // steps
    for (int item = static_cast<int>(blockIdx.x) / kCluster; item < task_.deal.items(); item += task_.clusters()) {
      const TilePart part = task_.deal.part(item);
      if (part.steps == 0) continue;
      const Place place(task_, part.tile);
      if constexpr (kAdapter) {
        for (int step = 0; step < task_.adapter_steps; ++step, at.advance()) {
          load(adapter_.matrix, adapter_.factor, place, step, at);
        }
      }
      for (int i = 0; i < part.steps; ++i, ++done, at.advance()) {
        const int step = part.first_step + i;
        if (i % kBoxSteps == 0) {
          atomic_store_shared(shared_.progress(), done);
          wait_for_signals(WeightBox{place.column / kBox, step / kBoxSteps}.done(task_), kPieces);
        }
        load(weight_, input_, place, step, at);
      }
    }
    atomic_store_shared(shared_.progress(), kAllDue);
  }

 private:
  /// Fills the stage, once it is empty. The bytes are always those of whole boxes: what lies outside comes as zeros.
  __device__ __forceinline__ void load(const CUtensorMap& weight, const CUtensorMap& input, const Place& place,
                                       int step, const Stage& at) const {
    mbarrier_wait(shared_.empty(at.stage), at.parity ^ 1);
    const int stage = at.stage;
    const std::uint32_t full = shared_.full(stage);
    mbarrier_arrive_expect_tx(full, SharedMemory::kStageBytes);
    tma_load_multicast(shared_.input(stage) + rank_ * SharedMemory::kHalfInputBytes, input, step * kStep * 2,
                       place.row + rank_ * (kTileRows / kCluster), full, (1 << kCluster) - 1);
    const int column = place.column + rank_ * kTileColumns;
    if constexpr (kForward) {
      tma_load(shared_.weight(stage, 0), weight, step * kStep * 2, column, full);
    } else {
#pragma unroll
      for (int group = 0; group < kWarpgroups; ++group) {
        tma_load(shared_.weight(stage, group), weight, (column + group * kGroupColumns) * 2, step * kStep, full);
      }
    }
  }

  const Task& task_;
  const CUtensorMap& weight_;
  const CUtensorMap& input_;
  const AdapterMaps& adapter_;
  const SharedMemory& shared_;
  int rank_;
};

}  // namespace qshard::optimized::many_rows

#endif
