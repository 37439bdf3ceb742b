#pragma once

#include "optimized/lora/warpgroup/warpgroup_operands.cuh"
#include "optimized/lora/warpgroup/warpgroup_stages.cuh"
#include "optimized/ptx/uniform.cuh"
#include "optimized/ptx/warpgroup_transposed.cuh"

namespace qshard::optimized::warpgroup_lora {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// A warpgroup's 64 rows.
template <typename T, Sum kSum, int kProducts, bool kMasked>
class Multiplier {
 public:
  using Memory = Memory<kProducts, kMasked>;

  __device__ __forceinline__ Multiplier(const SumTask& task, const Memory& memory, int group)
      : task_(task),
        memory_(memory),
        group_(group),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16) {}

  /// While one half of a step is multiplied, the next one's operands are made.
  __device__ __forceinline__ void run(int begin, int end) {
    StageCounter<Memory::kStages> counter;
    int last = -1;
    for (int step = begin; step < end; ++step, counter.advance()) {
      mbarrier_wait(memory_.full(counter.stage), counter.parity);
      multiply_half(counter.stage, 0, step > begin);
      wgmma_wait<1>();
      if (last >= 0) release(last);
      multiply_half(counter.stage, 1, true);
      wgmma_wait<1>();
      last = counter.stage;
    }
#pragma unroll
    for (auto& sums : sums_) wgmma_wait<0>(sums);
    store();
  }

 private:
  __device__ __forceinline__ void release(int stage) {
    __syncwarp();
    if (lane_ == 0) mbarrier_arrive(memory_.empty(stage));
  }

  /// 64 of the inner dimension: features, or tokens of a gradient.
  __device__ __forceinline__ void multiply_half(int stage, int half, bool add) {
    Operands input;
    if constexpr (kSum == Sum::tokens) {
      load_features(input, memory_.input(stage, group_), row_, 64 * half);
    } else {
      load_tokens(input, memory_.input(stage, half), 64 * group_ + row_);
    }
    Operands operands[kProducts];
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
#pragma unroll
      for (int i = 0; i < 16; ++i) operands[p][i / 4][i % 4] = input[i / 4][i % 4];
      if constexpr (kMasked) keep(operands[p], memory_.mask(stage, p), half);
      wgmma_fence(operands[p]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int p = 0; p < kProducts; ++p) {
        const std::uint32_t right = memory_.right(stage, p) + half * (Memory::kRightBytes / 2);
        if constexpr (kSum == Sum::weight_rows) {
          wgmma<T>(sums_[p], operands[p][i], swizzled_matrix_descriptor(right) + 2 * i, add || i > 0);
        } else {
          wgmma_transposed<T>(sums_[p], operands[p][i], transposed_matrix_descriptor(right + 16 * 128 * i, 0),
                              add || i > 0);
        }
      }
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void keep(Operands& operands, std::uint32_t mask, int half) const {
    if constexpr (kSum == Sum::tokens) {
      const int feature = 64 * group_ + row_;
      keep_features(operands, mask + feature / 32 * 4, feature % 32 != 0, 64 * half);
    } else {
      keep_tokens(operands, mask + (64 * group_ + row_) * 16 + 8 * half);
    }
  }

  __device__ __forceinline__ void store() const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = static_cast<int>(blockIdx.x) * kTileRows + 64 * group_ + row_ + lane_ / 4 + 8 * half;
      if (row >= task_.rows) continue;
#pragma unroll
      for (int p = 0; p < kProducts; ++p) {
        const RankSum& to = task_.projections[p];
        float* const out = to.out + blockIdx.y * task_.slice_stride + row * to.row_stride;
#pragma unroll
        for (int i = 0; i < kRankColumns / 8; ++i) {
          const float2 values =
              make_float2(task_.scale * sums_[p][4 * i + 2 * half], task_.scale * sums_[p][4 * i + 2 * half + 1]);
          const int column = 8 * i + lane_ % 4 * 2;
          if constexpr (kSum == Sum::tokens) {
            if (column < to.columns) put(out[column * to.column_stride], values.x);
            if (column + 1 < to.columns) put(out[(column + 1) * to.column_stride], values.y);
          } else {
            if (column < to.columns) *reinterpret_cast<float2*>(out + column) = values;
          }
        }
      }
    }
  }

  __device__ __forceinline__ void put(float& sum, float value) const {
    sum = task_.add ? sum + value : value;
  }

  const SumTask& task_;
  const Memory& memory_;
  int group_;
  int lane_;
  int row_;  // the warp's first, of the warpgroup's
  float sums_[kProducts][kRankColumns / 2];
};

#endif

/// grid: (tiles of rows, slices).
template <typename T, Sum kSum, int kProducts, bool kMasked>
__global__ void __launch_bounds__(kThreads, 1) warpgroup_sums_kernel(const __grid_constant__ SumTask task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  const Memory<kProducts, kMasked> memory{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  const int begin = static_cast<int>(blockIdx.y) * task.cut.steps_a_slice;
  const int end = min(task.steps, begin + task.cut.steps_a_slice);
  begin_kernel(task, memory);
  __syncthreads();
  const int group = warpgroup_index();
  if (group == kGroups) {
    setmaxnreg_dec<40>();
    if (threadIdx.x % 128 == 0) load<kSum>(task, memory, begin, end);
  } else {
    setmaxnreg_inc<232>();
    Multiplier<T, kSum, kProducts, kMasked>(task, memory, group).run(begin, end);
  }
#else
  __trap();
#endif
}

}  // namespace qshard::optimized::warpgroup_lora
