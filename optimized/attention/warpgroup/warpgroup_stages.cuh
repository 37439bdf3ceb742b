#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/attention/attention_task.h"
#include "optimized/attention/warpgroup/token_tile.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/stage_counter.cuh"

namespace qshard::optimized::warpgroup_attention {

/// What the copies read: [tokens, heads, head_dim], in boxes of 64 tokens by 128 bytes of a head.
struct TensorMaps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  CUtensorMap dout;
};

/// A thread block's shared memory: tiles that stay, kFixedTiles for each of kGroups warpgroups; stages of two tiles and
/// kStageFloats floats that pass by; barriers. Addresses in bytes.
template <int kDim, int kGroups, int kFixedTiles, int kStages, int kStageFloats>
struct Memory {
  static constexpr int kTileBytes = kTileTokens * kDim * 2;
  static constexpr int kFixedBytes = kFixedTiles * kGroups * kTileBytes;
  static constexpr int kStageBytes = 2 * kTileBytes;
  static constexpr int kFloats = kFixedBytes + kStages * kStageBytes;
  static constexpr int kBarriers = kFloats + kStages * kStageFloats * 4;
  static constexpr int kBytes = kBarriers + 8 * (2 * kStages + 1);
  static constexpr int kStageCount = kStages;
  static constexpr int kWarpgroups = kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);

  std::uint32_t first;  // a multiple of 1024

  [[nodiscard]] __device__ __forceinline__ std::uint32_t fixed(int group, int which) const {
    return first + (kFixedTiles * group + which) * kTileBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t passing(int stage, int which) const {
    return first + kFixedBytes + stage * kStageBytes + which * kTileBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t floats(int stage) const {
    return first + kFloats + stage * kStageFloats * 4;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t full(int stage) const { return first + kBarriers + 8 * stage; }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t fixed_full() const { return full(2 * kStages); }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// One thread, before the others use them.
template <typename Memory>
__device__ __forceinline__ void init_barriers(const Memory& memory) {
  for (int stage = 0; stage < Memory::kStageCount; ++stage) {
    mbarrier_init(memory.full(stage), 32);  // the producer's lanes
    mbarrier_init(memory.empty(stage), 4 * Memory::kWarpgroups);
  }
  mbarrier_init(memory.fixed_full(), 32 * Memory::kWarpgroups);
  mbarrier_init_fence();
}

/// What a kernel begins with, before it waits for earlier kernels: the barriers are set up and the maps fetched. The
/// other threads may use the barriers after the next __syncthreads().
template <typename Memory>
__device__ __forceinline__ void begin_kernel(const Memory& memory, const TensorMaps& maps) {
  trigger_programmatic_launch_completion();
  if (threadIdx.x == 0) {
    prefetch_tensor_map(maps.q);
    prefetch_tensor_map(maps.k);
    prefetch_tensor_map(maps.v);
    prefetch_tensor_map(maps.dout);
    init_barriers(memory);
  }
  grid_dependency_synchronize();
}

/// A matrix of heads in device memory.
template <typename T>
struct HeadRows {
  const CUtensorMap& map;
  const T* data;
  std::int64_t stride;
  int head_dim;
};

/// The producer's warp: fills kTiles tiles with 64 tokens of a head from `token` on, and arrives at
/// `barrier` with all lanes; of fewer than 64 that are present the others become zeros, so that nothing of another row
/// comes near a sum.
template <int kDim, typename T, int kTiles>
__device__ __forceinline__ void load_tiles(const HeadRows<T> (&rows)[kTiles], int head,
                                           const std::uint32_t (&to)[kTiles], int token, int present,
                                           std::uint32_t barrier) {
  const bool first_lane = threadIdx.x % 32 == 0;
  if (present < kTileTokens) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const HeadRows<T>& from = rows[i];
      TokenTile<kDim>{to[i]}.copy_present(from.data + token * from.stride + head * from.head_dim, from.stride,
                                          from.head_dim, present);
    }
    mbarrier_arrive(barrier);
  } else if (!first_lane) {
    mbarrier_arrive(barrier);
  } else {
    mbarrier_arrive_expect_tx(barrier, kTiles * TokenTile<kDim>::kBytes);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) TokenTile<kDim>{to[i]}.copy(rows[i].map, head, token, barrier);
  }
}

/// A warpgroup's warp has read a stage.
template <typename Memory>
__device__ __forceinline__ void release(const Memory& memory, int stage) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(memory.empty(stage));
}

#endif

}  // namespace qshard::optimized::warpgroup_attention
