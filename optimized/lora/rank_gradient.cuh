#pragma once

#include "optimized/lora/element_runs.cuh"
#include "optimized/lora/group_work.cuh"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_gradient.h"
#include "optimized/ptx/matrix_instruction.cuh"
#include "optimized/ptx/matrix_load.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

inline constexpr int kGradientFeatureWarps = kGradientFeatures / 32;  // of a block, for each column group

/// Columns [first, first + 8 tiles) of one gradient, whose element (feature, column) is feature_stride * feature +
/// column_stride * column floats from `out`.
struct GradientColumns {
  const void* factor;
  const std::uint8_t* mask;
  int rank, first;
  float* out;
  std::int64_t feature_stride, column_stride;
};

struct GradientTask {
  ScaledInput input;
  GradientColumns groups[kMostColumnGroups];
  int group_count, block_groups;
  std::int64_t slice_stride;  // floats from one slice's `out` to the next
  bool add;                   // to what is there
  SumCut cut;
  int stages;  // of shared memory
};

/// One stage of shared memory: the block's features of 64 tokens, of its groups' factors and of their masks. A row is a
/// token, whose 16-byte chunks are moved so that the rows of a matrix lie in different memory banks.
struct GradientStage {
  static constexpr int kInputChunks = kGradientFeatures / kRun;
  static constexpr int kFactorChunks = kGroupColumns / kRun;
  static constexpr int kInputBytes = kGradientTokens * kInputChunks * 16;
  static constexpr int kFactorBytes = kGradientTokens * kFactorChunks * 16;
  static constexpr int kMaskBytes = kGradientTokens * kInputChunks;
  __host__ __device__ static constexpr int bytes(int groups) {
    return kInputBytes + groups * (kFactorBytes + kMaskBytes);
  }

  std::uint32_t base;
  int groups;

  __device__ __forceinline__ std::uint32_t input(int token, int chunk) const {
    return base + (token * kInputChunks + (chunk ^ (token & 7))) * 16;
  }
  __device__ __forceinline__ std::uint32_t factor(int group, int token, int chunk) const {
    return base + kInputBytes + group * kFactorBytes + (token * kFactorChunks + (chunk ^ (token & 7))) * 16;
  }
  __device__ __forceinline__ std::uint32_t mask(int group, int token) const {
    return base + kInputBytes + groups * kFactorBytes + group * kMaskBytes + token * kInputChunks;
  }
};

template <typename T, bool kWide, int kTiles>
__device__ __forceinline__ void load_stage(const GradientTask& task, const GradientStage& stage, int first_feature,
                                           int first_group, int step) {
  constexpr int kInputChunks = GradientStage::kInputChunks;
  const int first = step * kGradientTokens;
  const auto tokens = static_cast<int>(task.input.tokens);
  const int threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < kGradientTokens * kInputChunks; i += threads) {
    const int token = first + i / kInputChunks;
    stage_run<kWide>(stage.input(i / kInputChunks, i % kInputChunks),
                     static_cast<const T*>(task.input.values) + token * task.input.stride,
                     first_feature + i % kInputChunks * kRun, static_cast<int>(task.input.features), token < tokens);
  }
  for (int group = 0; group < stage.groups; ++group) {
    const GradientColumns& columns = task.groups[first_group + group];
    const int stride = padded_rank(columns.rank);
    for (int i = static_cast<int>(threadIdx.x); i < kGradientTokens * kTiles; i += threads) {
      const int token = first + i / kTiles;
      stage_run<true>(stage.factor(group, i / kTiles, i % kTiles),
                      static_cast<const T*>(columns.factor) + static_cast<std::int64_t>(token) * stride,
                      columns.first + i % kTiles * kRun, stride, token < tokens);
    }
    if (columns.mask == nullptr) continue;
    for (int i = static_cast<int>(threadIdx.x); i < kGradientTokens; i += threads) {
      const int token = first + i;
      cp_async<kInputChunks>(stage.mask(group, i), columns.mask + token * task.input.mask_stride + first_feature / 8,
                             token < tokens);
    }
  }
}

/// Sets to 0 what the mask drops of an operand [16 features, 16 tokens]: lane 4 * g + t has features g and g + 8,
/// tokens 2 * t, 2 * t + 1 and those 8 further on. signs: of these four tokens the mask of 32 features, moved so that
/// bit 7 of byte b is the one of feature 8 b + g; the operand has features from 16 m.
__device__ __forceinline__ void keep_operand(uint4& operand, const std::uint32_t (&signs)[4], int m) {
  const std::uint32_t first = m == 0 ? 0xCC88U : 0xEEAAU;
  const std::uint32_t second = first + 0x1111U;
  operand.x &= spread_signs(signs[0], signs[1], first);
  operand.y &= spread_signs(signs[0], signs[1], second);
  operand.z &= spread_signs(signs[2], signs[3], first);
  operand.w &= spread_signs(signs[2], signs[3], second);
}

template <typename T, int kTiles>
__device__ __forceinline__ void multiply_stage(const GradientStage& stage, bool masked, int group, int feature_warp,
                                               float (&sums)[2][kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int first = 0; first < kGradientTokens; first += 16) {
    uint4 input[2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      input[m] =
          load_transposed(stage.input(first + lane / 16 * 8 + lane % 8, feature_warp * 4 + m * 2 + lane / 8 % 2));
    }
    if (masked) {
      std::uint32_t signs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = first + i / 2 * 8 + lane % 4 * 2 + i % 2;
        signs[i] = load_shared_u32(stage.mask(group, token) + feature_warp * 4) << (7 - lane / 4);
      }
      keep_operand(input[0], signs, 0);
      keep_operand(input[1], signs, 1);
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; tile += 2) {
      const uint4 factor = load_transposed(stage.factor(group, first + lane % 16, tile + lane / 16));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_m16n8k16<T>(sums[m][tile], input[m].x, input[m].y, input[m].z, input[m].w, factor.x, factor.y);
        mma_m16n8k16<T>(sums[m][tile + 1], input[m].x, input[m].y, input[m].z, input[m].w, factor.z, factor.w);
      }
    }
  }
}

/// A thread block has a tile of features, a slice of the sum over tokens and some column groups, as GroupWork says.
template <typename T, bool kWide, int kTiles>
__global__ void __launch_bounds__(32 * kGradientFeatureWarps * kMostBlockGroups)
    rank_gradient_kernel(const __grid_constant__ GradientTask task) {
  begin_early_kernel();
  extern __shared__ uint4 shared_memory[];
  const GroupWork<kGradientFeatureWarps, kGradientTokens> work(task, task.input.tokens);
  const std::uint32_t base = shared_address(shared_memory);
  const auto stage_of = [&](int step) {
    return GradientStage{base + work.stage(step) * GradientStage::bytes(work.groups), work.groups};
  };
  const auto load = [&](int step) {
    load_stage<T, kWide, kTiles>(task, stage_of(step), work.first_row, work.first_group, step);
  };
  work.start(load);
  float sums[2][kTiles][4] = {};
  const bool masked = work.has_group() && task.groups[work.first_group + work.group].mask != nullptr;
  const auto multiply = [&](int step) { multiply_stage<T>(stage_of(step), masked, work.group, work.row_warp, sums); };
  work.run(load, multiply);
  if (!work.has_group()) return;

  const GradientColumns& columns = task.groups[work.first_group + work.group];
  float* out = columns.out + blockIdx.y * task.slice_stride;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int feature = work.first_row + work.row_warp * 32 + i * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
    if (feature >= task.input.features) continue;
#pragma unroll
    for (int j = 0; j < 2 * kTiles; ++j) {
      const int column = columns.first + j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2;
      if (column >= columns.rank) continue;
      float& sum = out[feature * columns.feature_stride + column * columns.column_stride];
      const float value = task.input.scale * sums[i / 2][j / 2][i % 2 * 2 + j % 2];
      sum = task.add ? sum + value : value;
    }
  }
}

struct GradientSums {
  const float* partials;
  std::int64_t slice_stride;
  int slices;
  float* out[kMostProducts];
  std::int64_t first[kMostProducts];  // where the gradient begins in a slice
  int count;
};

/// out += the sum of the slices' partial sums, in their order.
inline __global__ void __launch_bounds__(256) add_gradient_slices_kernel(const __grid_constant__ GradientSums task) {
  begin_early_kernel();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= task.slice_stride) return;
  float sum = task.partials[i];
  for (int slice = 1; slice < task.slices; ++slice) sum += task.partials[slice * task.slice_stride + i];
  int gradient = task.count - 1;
  while (i < task.first[gradient]) --gradient;
  task.out[gradient][i - task.first[gradient]] += sum;
}

}  // namespace qshard::optimized
