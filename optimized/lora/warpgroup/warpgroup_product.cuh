#pragma once

#include <cuda.h>

#include "optimized/lora/warpgroup/warpgroup_product.h"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/sign_bytes.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/warpgroup_transposed.cuh"

namespace qshard::optimized::warpgroup_lora {

inline constexpr int kGroups = 2;  // warpgroups that multiply
inline constexpr int kThreads = 128 * (kGroups + 1);
inline constexpr int kMostSharedBytes = 227 << 10;

/// One product: its weight [rank, features], or [features, rank], and its mask.
struct ProductMaps {
  CUtensorMap weight;
  CUtensorMap mask;
};

struct ProductTask {
  CUtensorMap input;
  ProductMaps products[kMostProducts];
  int first_columns[kMostProducts];
  int strides[kMostProducts];  // columns that belong to the product
  float* partials;             // [slices, tokens, columns]
  int columns;
  int tokens;
  int steps;  // of kProductDepth features
  SumCut cut;
};

/// A stage holds kProductDepth features: of the tile's tokens in two boxes of 64 features, of each weight, of each
/// mask. Boxes are lines of 128 bytes in the copies' swizzle, and begin on 1024 bytes; a mask is 16 bytes a token.
template <int kProducts, bool kMasked>
struct ProductMemory {
  static constexpr int kBoxBytes = kProductTokens * 128;
  static constexpr int kWeightBytes = kRankColumns * kProductDepth * 2;
  static constexpr int kMaskBytes = kMasked ? kProductTokens * kProductDepth / 8 : 0;
  static constexpr int kStageBytes = 2 * kBoxBytes + kProducts * (kWeightBytes + kMaskBytes);
  static constexpr int kStages =
      (kMostSharedBytes - 1024) / kStageBytes < 4 ? (kMostSharedBytes - 1024) / kStageBytes : 4;
  static constexpr int kBytes = kStages * kStageBytes + 16 * kStages;

  std::uint32_t first;

  [[nodiscard]] __device__ __forceinline__ std::uint32_t input(int stage, int box) const {
    return first + stage * kStageBytes + box * kBoxBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t weight(int stage, int product) const {
    return first + stage * kStageBytes + 2 * kBoxBytes + product * kWeightBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t mask(int stage, int product) const {
    return weight(stage, kProducts) + product * kMaskBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t full(int stage) const {
    return first + kStages * kStageBytes + 8 * stage;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// One lane: fills the stages.
template <int kProducts, bool kMasked, bool kTransposed>
__device__ __forceinline__ void load(const ProductTask& task, const ProductMemory<kProducts, kMasked>& memory,
                                     int begin, int end) {
  using Memory = ProductMemory<kProducts, kMasked>;
  const int token = static_cast<int>(blockIdx.x) * kProductTokens;
  int stage = 0;
  int parity = 1;
  for (int step = begin; step < end; ++step) {
    mbarrier_wait(memory.empty(stage), parity);
    mbarrier_arrive_expect_tx(memory.full(stage), Memory::kStageBytes);
#pragma unroll
    for (int box = 0; box < 2; ++box) {
      tma_load(memory.input(stage, box), task.input, 256 * step + 128 * box, token, memory.full(stage));
    }
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
      const CUtensorMap& weight = task.products[p].weight;
      if constexpr (kTransposed) {
        tma_load(memory.weight(stage, p), weight, 256 * step, 0, memory.full(stage));
        tma_load(memory.weight(stage, p) + Memory::kWeightBytes / 2, weight, 256 * step + 128, 0, memory.full(stage));
      } else {
        tma_load(memory.weight(stage, p), weight, 0, kProductDepth * step, memory.full(stage));
      }
      if constexpr (kMasked) {
        tma_load(memory.mask(stage, p), task.products[p].mask, 16 * step, token, memory.full(stage));
      }
    }
    if (++stage == Memory::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

/// Sets to 0 what the mask drops of first operands: 64 tokens by 16 features each, of which a lane has tokens g and
/// g + 8, features 2 t, 2 t + 1, and those 8 further on. words: of these two tokens the masks of 64 features.
__device__ __forceinline__ void keep_operands(std::uint32_t (&operands)[4][4], const uint2 (&words)[2]) {
  const int quad_lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Bit 7 of byte b: of feature 8 b + 2 t, and of the one behind it.
      const std::uint32_t word = half == 0 ? words[row].x : words[row].y;
      const std::uint32_t even = word << (7 - 2 * quad_lane);
      const std::uint32_t odd = word << (6 - 2 * quad_lane);
      operands[2 * half][row] &= spread_signs(even, odd, 0xCC88U);
      operands[2 * half][2 + row] &= spread_signs(even, odd, 0xDD99U);
      operands[2 * half + 1][row] &= spread_signs(even, odd, 0xEEAAU);
      operands[2 * half + 1][2 + row] &= spread_signs(even, odd, 0xFFBBU);
    }
  }
}

/// A warpgroup's 64 tokens.
template <typename T, int kProducts, bool kMasked, bool kTransposed>
class ProductMultiplier {
 public:
  using Memory = ProductMemory<kProducts, kMasked>;

  __device__ __forceinline__ ProductMultiplier(const ProductTask& task, const Memory& memory, int group)
      : task_(task),
        memory_(memory),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(64 * group + static_cast<int>(threadIdx.x) % 128 / 32 * 16) {}

  /// While one half of a stage is multiplied, the next one's operands are made.
  __device__ __forceinline__ void run(int begin, int end) {
    int stage = 0;
    int parity = 0;
    int last = -1;
    for (int step = begin; step < end; ++step) {
      mbarrier_wait(memory_.full(stage), parity);
      multiply_half(stage, 0, step > begin);
      wgmma_wait<1>();
      if (last >= 0) release(last);
      multiply_half(stage, 1, true);
      wgmma_wait<1>();
      last = stage;
      if (++stage == Memory::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
#pragma unroll
    for (auto& product : sums_) wgmma_wait<0>(product);
    store();
  }

 private:
  __device__ __forceinline__ void release(int stage) {
    __syncwarp();
    if (lane_ == 0) mbarrier_arrive(memory_.empty(stage));
  }

  __device__ __forceinline__ void multiply_half(int stage, int half, bool add) {
    std::uint32_t input[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = row_ + lane_ % 16;
      const int chunk = 2 * i + lane_ / 16;
      ldmatrix(input[i], memory_.input(stage, half) + row * 128 + ((chunk ^ row % 8) << 4));
    }
    std::uint32_t operands[kProducts][4][4];
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int part = 0; part < 4; ++part) operands[p][i][part] = input[i][part];
      }
      if constexpr (kMasked) {
        const std::uint32_t mask = memory_.mask(stage, p) + (row_ + lane_ / 4) * 16 + 8 * half;
        keep_operands(operands[p], {load_shared_u32x2(mask), load_shared_u32x2(mask + 8 * 16)});
      }
      wgmma_fence(operands[p]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int p = 0; p < kProducts; ++p) {
        const std::uint32_t weight = memory_.weight(stage, p) + half * (Memory::kWeightBytes / 2);
        if constexpr (kTransposed) {
          wgmma<T>(sums_[p], operands[p][i], swizzled_matrix_descriptor(weight) + 2 * i, add || i > 0);
        } else {
          wgmma_transposed<T>(sums_[p], operands[p][i], transposed_matrix_descriptor(weight + i * 16 * 128, 0),
                              add || i > 0);
        }
      }
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void store() const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = static_cast<int>(blockIdx.x) * kProductTokens + row_ + lane_ / 4 + 8 * half;
      if (token >= task_.tokens) continue;
      float* const to = task_.partials + (static_cast<std::int64_t>(blockIdx.y) * task_.tokens + token) * task_.columns;
#pragma unroll
      for (int p = 0; p < kProducts; ++p) {
#pragma unroll
        for (int i = 0; i < kRankColumns / 8; ++i) {
          if (8 * i >= task_.strides[p]) continue;
          *reinterpret_cast<float2*>(to + task_.first_columns[p] + 8 * i + lane_ % 4 * 2) =
              make_float2(sums_[p][4 * i + 2 * half], sums_[p][4 * i + 2 * half + 1]);
        }
      }
    }
  }

  const ProductTask& task_;
  const Memory& memory_;
  int lane_;
  int row_;
  float sums_[kProducts][kRankColumns / 2];
};

#endif

/// grid: (tiles of tokens, slices). kTransposed: weights are [rank, features].
template <typename T, int kProducts, bool kMasked, bool kTransposed>
__global__ void __launch_bounds__(kThreads, 1) warpgroup_product_kernel(const __grid_constant__ ProductTask task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Memory = ProductMemory<kProducts, kMasked>;
  extern __shared__ __align__(1024) unsigned char smem[];
  const Memory memory{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  const int begin = static_cast<int>(blockIdx.y) * task.cut.steps_a_slice;
  const int end = min(task.steps, begin + task.cut.steps_a_slice);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Memory::kStages; ++stage) {
      mbarrier_init(memory.full(stage), 1);
      mbarrier_init(memory.empty(stage), 4 * kGroups);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  const int group = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == kGroups) {
    setmaxnreg_dec<40>();
    if (threadIdx.x % 128 == 0) load<kProducts, kMasked, kTransposed>(task, memory, begin, end);
  } else {
    setmaxnreg_inc<232>();
    ProductMultiplier<T, kProducts, kMasked, kTransposed>(task, memory, group).run(begin, end);
  }
#else
  __trap();
#endif
}

}  // namespace qshard::optimized::warpgroup_lora
