#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// Two threads' parts: one fills the stages of codes, the other those of the input, half of each for both thread blocks
/// of the cluster, which get the other half from there.
template <typename T, bool kForward, int kColumns>
class Loader {
 public:
  __device__ __forceinline__ Loader(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& input,
                                    const SharedMemory<kColumns>& shared)
      : task_(task),
        codes_(codes),
        input_(input),
        shared_(shared),
        cluster_(static_cast<int>(blockIdx.x) / kCluster),
        rank_(cluster_rank()),
        steps_(task.order.steps_of(cluster_, task.tiles)) {}

  /// A thread's part. Sets the barriers up: a stage is full when the input has arrived and a team has written the
  /// weight, and empty when the multipliers of both thread blocks have read it.
  __device__ __forceinline__ void start() const {
    prefetch_tensor_map(codes_);
    prefetch_tensor_map(input_);
    for (int stage = 0; stage < Shared::kStages; ++stage) {
      mbarrier_init(shared_.full(stage), 1 + kTeamWarps);
      mbarrier_init(shared_.empty(stage), kCluster * kMultiplierWarps);
    }
    for (int stage = 0; stage < Shared::kCodeStages; ++stage) {
      mbarrier_init(shared_.codes_full(stage), 1);
      mbarrier_init(shared_.codes_empty(stage), kChunks * kTeamWarps);
    }
    mbarrier_init_fence();
  }

  /// A thread's part; waits for earlier kernels when it knows what to load first, as load_input() does.
  __device__ __forceinline__ void load_codes() const {
    StageCounter<Shared::kCodeStages> at;
    for (int number = 0; number < steps_;) {
      const Segment segment = task_.order.segment(cluster_, number);
      int feature = first_feature(task_, segment.tile);
      if (number == 0) {
        for (int i = 0; i < min(Shared::kCodeStages, segment.end); ++i) {
          const Place place = codes_at(feature, segment.first_step + i);
          tma_prefetch(codes_, place.x, place.y);
        }
        asm volatile("" : "+r"(feature));
        grid_dependency_synchronize();
      }
#pragma unroll 1
      for (int step = segment.first_step; number < segment.end; ++number, ++step, at.advance()) {
        mbarrier_wait(shared_.codes_empty(at.stage), at.parity ^ 1);
        const std::uint32_t full = shared_.codes_full(at.stage);
        mbarrier_arrive_expect_tx(full, Shared::kCodeBytes);
        const Place place = codes_at(feature, step);
        tma_load(shared_.codes(at.stage), codes_, place.x, place.y, full);
      }
    }
  }

  __device__ __forceinline__ void load_input() const {
    constexpr std::uint32_t kHalf = Shared::kInputBytes / kCluster;
    StageCounter<Shared::kStages> at;
    for (int number = 0; number < steps_;) {
      const Segment segment = task_.order.segment(cluster_, number);
      int row = segment.tile % task_.column_tiles * kColumns + rank_ * (kColumns / kCluster);
      if (number == 0) {
        asm volatile("" : "+r"(row));
        grid_dependency_synchronize();
      }
#pragma unroll 1
      for (int chunk = segment.first_step * kChunks; number < segment.end; ++number) {
#pragma unroll 1
        for (int i = 0; i < kChunks; ++i, ++chunk, at.advance()) {
          mbarrier_wait(shared_.empty(at.stage), at.parity ^ 1);
          mbarrier_arrive_expect_tx(shared_.full(at.stage), Shared::kInputBytes);
          tma_load_multicast(shared_.input(at.stage) + rank_ * kHalf, input_, chunk * (kChunk * 2), row,
                             shared_.full(at.stage), (1 << kCluster) - 1);
        }
      }
    }
  }

 private:
  using Shared = SharedMemory<kColumns>;

  /// Of a box of codes.
  struct Place {
    int x;
    int y;
  };

  [[nodiscard]] __device__ __forceinline__ static Place codes_at(int feature, int step) {
    return {(kForward ? step * kStep : feature) / 2, kForward ? feature : step * kStep};
  }

  const Task<T>& task_;
  const CUtensorMap& codes_;
  const CUtensorMap& input_;
  const SharedMemory<kColumns>& shared_;
  int cluster_;
  int rank_;
  int steps_;
};

}  // namespace qshard::optimized::wide

#endif
