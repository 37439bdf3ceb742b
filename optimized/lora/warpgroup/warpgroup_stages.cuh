#pragma once

#include <cuda.h>

#include "optimized/lora/warpgroup/warpgroup_sums.h"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/stage_counter.cuh"

namespace qshard::optimized::warpgroup_lora {

inline constexpr int kGroups = 2;  // warpgroups that multiply
inline constexpr int kThreads = 128 * (kGroups + 1);
inline constexpr int kStageRoom = 226 << 10;

struct SumTask {
  CUtensorMap input;
  CUtensorMap right[kMostProducts];
  CUtensorMap mask[kMostProducts];
  RankSum projections[kMostProducts];
  int rows;
  int steps;
  SumCut cut;
  std::int64_t slice_stride;
  float scale;
  bool add;
};

/// A stage: 128 tokens by 128 features of the input in two boxes of 64 features, and of each projection 128 by 64
/// elements of its right operand and 128 tokens' masks of 128 features. Boxes are lines of 128 bytes in the copies'
/// swizzle and begin on 1024 bytes; a mask is 16 bytes a token.
template <int kProducts, bool kMasked>
struct Memory {
  static constexpr int kBoxBytes = 128 * 128;
  static constexpr int kRightBytes = 128 * kRankColumns * 2;
  static constexpr int kMaskBytes = kMasked ? 128 * 16 : 0;
  static constexpr int kStageBytes = 2 * kBoxBytes + kProducts * (kRightBytes + kMaskBytes);
  static constexpr int kStages = kStageRoom / kStageBytes < 4 ? kStageRoom / kStageBytes : 4;
  static constexpr int kBytes = kStages * kStageBytes + 16 * kStages;

  std::uint32_t first;

  [[nodiscard]] __device__ __forceinline__ std::uint32_t input(int stage, int box) const {
    return first + stage * kStageBytes + box * kBoxBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t right(int stage, int projection) const {
    return first + stage * kStageBytes + 2 * kBoxBytes + projection * kRightBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t mask(int stage, int projection) const {
    return right(stage, kProducts) + projection * kMaskBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t full(int stage) const {
    return first + kStages * kStageBytes + 8 * stage;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int kProducts, bool kMasked>
__device__ __forceinline__ void init_barriers(const Memory<kProducts, kMasked>& memory) {
  for (int stage = 0; stage < Memory<kProducts, kMasked>::kStages; ++stage) {
    mbarrier_init(memory.full(stage), 1);
    mbarrier_init(memory.empty(stage), 4 * kGroups);
  }
  mbarrier_init_fence();
}

/// What the kernel begins with, before it waits for earlier kernels: the barriers are set up and the maps fetched. The
/// other threads may use the barriers after the next __syncthreads().
template <int kProducts, bool kMasked>
__device__ __forceinline__ void begin_kernel(const SumTask& task, const Memory<kProducts, kMasked>& memory) {
  trigger_programmatic_launch_completion();
  if (threadIdx.x == 0) {
    prefetch_tensor_map(task.input);
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
      prefetch_tensor_map(task.right[p]);
      if constexpr (kMasked) prefetch_tensor_map(task.mask[p]);
    }
    init_barriers(memory);
  }
  grid_dependency_synchronize();
}

/// One lane: fills the stages of the steps.
template <Sum kSum, int kProducts, bool kMasked>
__device__ __forceinline__ void load(const SumTask& task, const Memory<kProducts, kMasked>& memory, int begin,
                                     int end) {
  using Memory = Memory<kProducts, kMasked>;
  const int row = static_cast<int>(blockIdx.x) * kTileRows;
  StageCounter<Memory::kStages> counter;
  for (int step = begin; step < end; ++step, counter.advance()) {
    const int depth = step * kDepth;
    const int token = kSum == Sum::tokens ? depth : row;
    const int feature = kSum == Sum::tokens ? row : depth;
    const std::uint32_t full = memory.full(counter.stage);
    mbarrier_wait(memory.empty(counter.stage), counter.parity ^ 1);
    mbarrier_arrive_expect_tx(full, Memory::kStageBytes);
#pragma unroll
    for (int box = 0; box < 2; ++box) {
      tma_load(memory.input(counter.stage, box), task.input, 2 * feature + 128 * box, token, full);
    }
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
      const std::uint32_t to = memory.right(counter.stage, p);
      if constexpr (kSum == Sum::weight_rows) {
        tma_load(to, task.right[p], 2 * depth, 0, full);
        tma_load(to + Memory::kRightBytes / 2, task.right[p], 2 * depth + 128, 0, full);
      } else {
        tma_load(to, task.right[p], 0, depth, full);
      }
      if constexpr (kMasked) tma_load(memory.mask(counter.stage, p), task.mask[p], feature / 8, token, full);
    }
  }
}

#endif

}  // namespace qshard::optimized::warpgroup_lora
