#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/many_rows_tiles.cuh"
#include "optimized/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized {

/// One thread's part: fills the stages in turn. Half of each stage's input comes from the cluster's other thread block,
/// which gets the other half from here.
template <bool kForward>
class ManyRowsLoader {
 public:
  __device__ __forceinline__ ManyRowsLoader(const ManyRowsTask& task, const CUtensorMap& codes,
                                            const CUtensorMap& input, const ManyRowsShared& shared)
      : task_(task), codes_(codes), input_(input), shared_(shared), rank_(cluster_rank()) {}

  /// Sets the barriers up. A stage is empty when the warps of both thread blocks have read it.
  __device__ __forceinline__ void start() const {
    prefetch_map(codes_);
    prefetch_map(input_);
    for (int stage = 0; stage < ManyRowsShared::kStages; ++stage) {
      barrier_init(shared_.full(stage), 1);
      barrier_init(shared_.empty(stage), kCluster * kMultiplierWarps);
    }
    barrier_init_fence();
  }

  __device__ __forceinline__ void run() const {
    wait_for_earlier_kernels();
    const int clusters = static_cast<int>(gridDim.x) / kCluster;
    ManyRowsStage at;
    for (int tile = static_cast<int>(blockIdx.x) / kCluster; tile < task_.tiles(); tile += clusters) {
      const ManyRowsPlace place(task_, tile);
      for (int step = 0; step < task_.steps; ++step, at.advance()) {
        barrier_wait(shared_.empty(at.stage), at.parity ^ 1);
        barrier_expect(shared_.full(at.stage), ManyRowsShared::kStageBytes);
        load_weight(place.column + rank_ * kTileColumns, step, at.stage);
        copy_box_to_all(shared_.input(at.stage) + rank_ * ManyRowsShared::kHalfInputBytes, input_, step * kStep * 2,
                        place.row + rank_ * (kTileRows / kCluster), shared_.full(at.stage), (1 << kCluster) - 1);
      }
    }
  }

 private:
  __device__ __forceinline__ void load_weight(int column, int step, int stage) const {
    const std::uint32_t full = shared_.full(stage);
    if constexpr (kForward) {
      copy_box(shared_.codes(stage), codes_, step * kStep / 2, column, full);
      bulk_copy(shared_.scales(stage), task_.scales + step * task_.layout.rows + column, ManyRowsShared::kScaleBytes,
                full);
    } else {
      copy_box(shared_.codes(stage), codes_, column / 2, step * kStep, full);
#pragma unroll
      for (int group = 0; group < kWarpgroups; ++group) {
        constexpr std::uint32_t kBytes = ManyRowsShared::kScaleBytes / kWarpgroups;
        const float* from = task_.scales + (column / kStep + group) * task_.layout.rows + step * kStep;
        bulk_copy(shared_.scales(stage) + group * kBytes, from, kBytes, full);
      }
    }
  }

  const ManyRowsTask& task_;
  const CUtensorMap& codes_;
  const CUtensorMap& input_;
  const ManyRowsShared& shared_;
  int rank_;
};

}  // namespace qshard::optimized

#endif
