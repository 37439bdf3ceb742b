#pragma once

#include "optimized/lora/element_runs.cuh"
#include "optimized/lora/group_work.cuh"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_product.h"
#include "optimized/ptx/matrix_instruction.cuh"
#include "optimized/ptx/matrix_load.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

inline constexpr int kProductTokenWarps = kProductTokens / 32;  // of a block, for each column group

/// Columns [first, first + 8 tiles) of one product, and where they begin in a row of partial sums.
struct ProductColumns {
  const void* weight;
  const std::uint8_t* mask;
  int rank, first, column;
};

struct ProductTask {
  ScaledInput input;
  ProductColumns groups[kMostColumnGroups];
  int group_count, block_groups;
  float* partials;  // [slices, tokens, columns]
  int columns;
  SumCut cut;
  int stages;  // of shared memory
};

/// One stage of shared memory: 64 features of the block's tokens, of its groups' weights and of their masks. A row of
/// features is 128 bytes, whose 16-byte chunks are moved so that no two lanes meet in a memory bank.
template <bool kTransposed, int kTiles>
struct ProductStage {
  static constexpr int kChunks = kProductDepth / kRun;
  static constexpr int kInputBytes = kProductTokens * kChunks * 16;
  static constexpr int kWeightBytes = kTransposed ? kTiles * 8 * kChunks * 16 : kProductDepth * 8 * 16;
  static constexpr int kMaskBytes = kProductTokens * kChunks;
  __host__ __device__ static constexpr int bytes(int groups) {
    return kInputBytes + groups * (kWeightBytes + kMaskBytes);
  }

  std::uint32_t base;
  int groups;

  __device__ __forceinline__ std::uint32_t input(int token, int chunk) const {
    return base + (token * kChunks + (chunk ^ (token & 1) << 2)) * 16;
  }
  /// Column `row` and its features' chunk, for a transposed weight.
  __device__ __forceinline__ std::uint32_t transposed_weight(int group, int row, int chunk) const {
    return base + kInputBytes + group * kWeightBytes + (row * kChunks + (chunk ^ (row & 1) << 2)) * 16;
  }
  /// Feature `row` and its columns' chunk. A matrix of load_transposed() has rows 0, 1, 8, 9, 16, 17, 24 and 25.
  __device__ __forceinline__ std::uint32_t weight(int group, int row, int chunk) const {
    return base + kInputBytes + group * kWeightBytes + (row * 8 + (chunk ^ ((row & 1) | (row >> 3 & 3) << 1))) * 16;
  }
  __device__ __forceinline__ std::uint32_t mask(int group, int token) const {
    return base + kInputBytes + groups * kWeightBytes + group * kMaskBytes + token * kChunks;
  }
};

template <typename T, bool kWide, bool kTransposed, int kTiles>
__device__ __forceinline__ void load_stage(const ProductTask& task, const ProductStage<kTransposed, kTiles>& stage,
                                           int first_token, int first_group, int step) {
  constexpr int kChunks = kProductDepth / kRun;
  const int first = step * kProductDepth;
  const int depth = static_cast<int>(task.input.features);
  const auto tokens = static_cast<int>(task.input.tokens);
  const int threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < kProductTokens * kChunks; i += threads) {
    const int token = first_token + i / kChunks;
    stage_run<kWide>(stage.input(i / kChunks, i % kChunks),
                     static_cast<const T*>(task.input.values) + token * task.input.stride, first + i % kChunks * kRun,
                     depth, token < tokens);
  }
  for (int group = 0; group < stage.groups; ++group) {
    const ProductColumns& columns = task.groups[first_group + group];
    const auto* weight = static_cast<const T*>(columns.weight);
    if constexpr (kTransposed) {
      for (int i = static_cast<int>(threadIdx.x); i < kTiles * 8 * kChunks; i += threads) {
        const int row = columns.first + i / kChunks;
        stage_run<kWide>(stage.transposed_weight(group, i / kChunks, i % kChunks),
                         weight + static_cast<std::int64_t>(row) * depth, first + i % kChunks * kRun, depth,
                         row < columns.rank);
      }
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < kProductDepth * kTiles; i += threads) {
        const int row = first + i / kTiles;
        stage_run<kWide>(stage.weight(group, i / kTiles, i % kTiles),
                         weight + static_cast<std::int64_t>(row) * columns.rank, columns.first + i % kTiles * 8,
                         columns.rank, row < depth);
      }
    }
    if (columns.mask == nullptr) continue;
    for (int i = static_cast<int>(threadIdx.x); i < kProductTokens; i += threads) {
      const int token = first_token + i;
      cp_async<kChunks>(stage.mask(group, i), columns.mask + token * task.input.mask_stride + first / 8,
                        token < tokens);
    }
  }
}

/// The inner dimension's order is free as long as both operands agree: of 32 features, lane t of a quad has run t, and
/// matrix instruction s takes elements 4s to 4s + 3 of every run.
template <typename T, bool kTransposed, int kTiles>
__device__ __forceinline__ void multiply_stage(const ProductStage<kTransposed, kTiles>& stage, bool masked, int group,
                                               int token_warp, float (&sums)[2][kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int quad_row = lane / 4;
  const int quad_lane = lane % 4;
  // Row lane % 8 of matrix lane / 8: where the features are that the matrix instruction wants there.
  const int feature = lane % 8 / 2 * 8 + lane / 16 * 4 + lane / 8 % 2 * 2 + lane % 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint4 input[2][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = token_warp * 32 + i * 8 + quad_row;
      uint4& run = input[i / 2][i % 2];
      run = load_shared_u32x4(stage.input(token, half * 4 + quad_lane));
      if (masked) run = keep_run(run, load_shared_u8(stage.mask(group, token) + half * 4 + quad_lane));
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint4 weight;
      if constexpr (kTransposed) {
        weight = load_shared_u32x4(stage.transposed_weight(group, tile * 8 + quad_row, half * 4 + quad_lane));
      } else {
        weight = load_transposed(stage.weight(group, half * 32 + feature, tile));
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_m16n8k16<T>(sums[m][tile], input[m][0].x, input[m][1].x, input[m][0].y, input[m][1].y, weight.x, weight.y);
        mma_m16n8k16<T>(sums[m][tile], input[m][0].z, input[m][1].z, input[m][0].w, input[m][1].w, weight.z, weight.w);
      }
    }
  }
}

/// A thread block has a tile of tokens, a slice of the sum over features and some column groups, as GroupWork says.
template <typename T, bool kWide, bool kTransposed, int kTiles>
__global__ void __launch_bounds__(32 * kProductTokenWarps * kMostBlockGroups)
    rank_product_kernel(const __grid_constant__ ProductTask task) {
  begin_early_kernel();
  extern __shared__ uint4 shared_memory[];
  const GroupWork<kProductTokenWarps, kProductDepth> work(task, task.input.features);
  const std::uint32_t base = shared_address(shared_memory);
  const auto stage_of = [&](int step) {
    return ProductStage<kTransposed, kTiles>{
        base + work.stage(step) * ProductStage<kTransposed, kTiles>::bytes(work.groups), work.groups};
  };
  const auto load = [&](int step) {
    load_stage<T, kWide>(task, stage_of(step), work.first_row, work.first_group, step);
  };
  work.start(load);
  float sums[2][kTiles][4] = {};
  const bool masked = work.has_group() && task.groups[work.first_group + work.group].mask != nullptr;
  const auto multiply = [&](int step) { multiply_stage<T>(stage_of(step), masked, work.group, work.row_warp, sums); };
  work.run(load, multiply);
  if (!work.has_group()) return;

  const ProductColumns& columns = task.groups[work.first_group + work.group];
  const int present = (columns.rank - columns.first + 7) / 8;  // tiles with columns of this product
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = work.first_row + work.row_warp * 32 + i * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
    if (token >= task.input.tokens) continue;
    float* row = task.partials + (blockIdx.y * task.input.tokens + token) * task.columns + columns.column;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (tile >= present) continue;
      *reinterpret_cast<float2*>(row + tile * 8 + threadIdx.x % 4 * 2) = {sums[i / 2][tile][i % 2 * 2],
                                                                          sums[i / 2][tile][i % 2 * 2 + 1]};
    }
  }
}

/// Where the columns from `first` of the partial sums belong.
struct ProductOut {
  void* out;
  int first;
  int stride;
};

struct ProductSums {
  const float* partials;
  std::int64_t tokens;
  int columns, slices;
  ProductOut products[kMostProducts];
  int count;
  float scale;
};

inline constexpr int kSumColumns = 4;  // of a thread
inline constexpr int kSumThreads = 128;

/// out = scale times the sum of the slices' partial sums, in their order, rounded to T; a thread has four columns of a
/// token.
template <typename T>
__global__ void __launch_bounds__(kSumThreads) add_product_slices_kernel(const __grid_constant__ ProductSums task) {
  begin_early_kernel();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  const int runs = task.columns / kSumColumns;
  if (i >= task.tokens * runs) return;
  const std::int64_t token = i / runs;
  const int column = static_cast<int>(i % runs) * kSumColumns;
  const auto* partials = reinterpret_cast<const float4*>(task.partials) + i;
  float4 sum = {};
#pragma unroll 4
  for (int slice = 0; slice < task.slices; ++slice) {
    const float4 more = partials[slice * task.tokens * runs];
    sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
  }
  int product = task.count - 1;
  while (column < task.products[product].first) --product;
  const ProductOut& to = task.products[product];
  *reinterpret_cast<uint2*>(static_cast<T*>(to.out) + token * to.stride + column - to.first) = {
      round_pair<T>(task.scale * sum.x, task.scale * sum.y), round_pair<T>(task.scale * sum.z, task.scale * sum.w)};
}

}  // namespace qshard::optimized
