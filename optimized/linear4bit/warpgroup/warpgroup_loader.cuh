#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::warpgroup {

/// One thread's part: fills the stages in turn.
template <typename T, int kColumnTiles>
class Loader {
 public:
  __device__ __forceinline__ Loader(const Task<T>& task, const CUtensorMap& codes,
                                    const SharedMemory<kColumnTiles>& shared, int begin, int end)
      : task_(task),
        codes_(codes),
        shared_(shared),
        begin_(begin),
        end_(end),
        first_(min(end - begin, Shared::kStages)) {}

  /// Sets the barriers up and asks for the first codes: the kernel that packs x begins when the weight is there, and
  /// lets this one begin.
  __device__ __forceinline__ void start() const {
    prefetch_tensor_map(codes_);
    for (int stage = 0; stage < Shared::kStages; ++stage) {
      mbarrier_init(shared_.full(stage), 1);
      mbarrier_init(shared_.empty(stage), kMultiplierWarps);
    }
    mbarrier_init_fence();
    Place at(task_.split, begin_);
    for (int i = 0; i < first_; ++i, at.advance(task_.split)) load_codes(at, i);
  }

  __device__ __forceinline__ void run() const {
    grid_dependency_synchronize();  // the last of which packs x
    Place at(task_.split, begin_);
    for (int i = 0; i < first_; ++i, at.advance(task_.split)) load_x(at, i);
    StageCounter<Shared::kStages> counter;
    for (int i = begin_ + first_; i < end_; ++i, at.advance(task_.split), counter.advance()) {
      mbarrier_wait(shared_.empty(counter.stage), counter.parity);
      load_codes(at, counter.stage);
      load_x(at, counter.stage);
    }
  }

 private:
  using Shared = SharedMemory<kColumnTiles>;

  __device__ __forceinline__ void load_codes(const Place& at, int stage) const {
    mbarrier_arrive_expect_tx(shared_.full(stage), Shared::kStageBytes);
    tma_load(shared_.stage(stage), codes_, at.step * kStep / 2, at.tile * kTileRows, shared_.full(stage));
  }

  __device__ __forceinline__ void load_x(const Place& at, int stage) const {
    constexpr std::uint32_t kBytes = kChunks * Shared::kChunkBytes;
    bulk_copy(shared_.stage(stage) + Shared::kCodeBytes,
              reinterpret_cast<const unsigned char*>(task_.packed_x) + static_cast<std::int64_t>(at.step) * kBytes,
              kBytes, shared_.full(stage));
  }

  const Task<T>& task_;
  const CUtensorMap& codes_;
  const SharedMemory<kColumnTiles>& shared_;
  int begin_;
  int end_;
  int first_;  // stages to fill at once
};

}  // namespace qshard::optimized::warpgroup

#endif
