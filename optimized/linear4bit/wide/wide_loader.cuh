#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// Two threads' parts: one fills the stages of codes, the other those of the input, half of each for both thread blocks
/// of the cluster, which get the other half from there.
template <typename T, bool kForward, int kColumns>
class Loader {
 public:
  __device__ __forceinline__ Loader(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& input,
                                    const SharedMemory<kColumns>& shared, int begin, int end)
      : task_(task), codes_(codes), input_(input), shared_(shared), begin_(begin), end_(end), rank_(cluster_rank()) {}

  /// Sets the barriers up. A stage of the input is empty when the warps of both thread blocks have read it.
  __device__ __forceinline__ void start() const {
    prefetch_tensor_map(codes_);
    prefetch_tensor_map(input_);
    for (int stage = 0; stage < Shared::kInputStages; ++stage) {
      mbarrier_init(shared_.input_full(stage), 1);
      mbarrier_init(shared_.input_empty(stage), kCluster * kMultiplierWarps);
    }
    for (int stage = 0; stage < Shared::kCodeStages; ++stage) {
      mbarrier_init(shared_.codes_full(stage), 1);
      mbarrier_init(shared_.codes_empty(stage), kMultiplierWarps);
    }
    mbarrier_init_fence();
  }

  __device__ __forceinline__ void load_codes() const {
    StageCounter<Shared::kCodeStages> at;
    Place place(task_.split, begin_);
#pragma unroll 1
    for (int i = begin_; i < end_; ++i, place.advance(task_.split), at.advance()) {
      const int feature = task_.first_feature(place.tile, rank_);
      mbarrier_wait(shared_.codes_empty(at.stage), at.parity ^ 1);
      mbarrier_arrive_expect_tx(shared_.codes_full(at.stage), Shared::kCodeBytes);
      tma_load(shared_.codes(at.stage), codes_, kForward ? place.step * (kStep / 2) : feature / 2,
               kForward ? feature : place.step * kStep, shared_.codes_full(at.stage));
    }
  }

  __device__ __forceinline__ void load_input() const {
    constexpr std::uint32_t kHalf = Shared::kInputBytes / kCluster;
    StageCounter<Shared::kInputStages> at;
    Place place(task_.split, begin_);
#pragma unroll 1
    for (int i = begin_; i < end_; ++i, place.advance(task_.split)) {
      const int row = place.tile % task_.column_tiles * kColumns + rank_ * (kColumns / kCluster);
#pragma unroll 1
      for (int chunk = 0; chunk < kChunks; ++chunk, at.advance()) {
        mbarrier_wait(shared_.input_empty(at.stage), at.parity ^ 1);
        mbarrier_arrive_expect_tx(shared_.input_full(at.stage), Shared::kInputBytes);
        tma_load_multicast(shared_.input(at.stage) + rank_ * kHalf, input_,
                           (place.step * kChunks + chunk) * (kChunk * 2), row, shared_.input_full(at.stage),
                           (1 << kCluster) - 1);
      }
    }
  }

 private:
  using Shared = SharedMemory<kColumns>;

  const Task<T>& task_;
  const CUtensorMap& codes_;
  const CUtensorMap& input_;
  const SharedMemory<kColumns>& shared_;
  int begin_;
  int end_;
  int rank_;
};

}  // namespace qshard::optimized::wide

#endif
