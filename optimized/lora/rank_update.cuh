#pragma once

#include "optimized/lora/element_runs.cuh"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_update.h"
#include "optimized/ptx/matrix_instruction.cuh"
#include "optimized/ptx/matrix_load.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

inline constexpr int kUpdateThreads = 256;
inline constexpr int kUpdateTokens = 128;    // of a block: 32 for each of four warps
inline constexpr int kUpdateFeatures = 128;  // of a block: 64 for each of two warps
inline constexpr int kUpdateDepth = 32;      // inner columns that a quad of lanes loads at once

struct UpdateTask {
  UpdatedOutput output;
  RankUpdate updates[kMostProducts];
  int count;
};

/// Bytes of shared memory for 128 features of a weight of this rank.
__host__ __device__ constexpr int update_weight_bytes(std::int64_t rank) {
  return static_cast<int>((rank + kUpdateDepth - 1) / kUpdateDepth) * kUpdateDepth * kUpdateFeatures * 2;
}

/// Where the words of a transposed weight [features, rank] lie: run `run` of 32 inner columns of a feature.
__device__ __forceinline__ std::uint32_t transposed_place(int feature, int depth_block, int run) {
  return ((depth_block * kUpdateFeatures + feature) * 4 + run) * 16;
}

/// Where inner column `row` of a weight [rank, features] lies: eight features in 16 bytes, which are features 2 j and
/// 2 j + 1 of each of the four runs of 32 features for chunk 4 * (feature / 32) + j.
__device__ __forceinline__ std::uint32_t place(int row, int chunk) {
  return (row * (kUpdateFeatures / kRun) + (chunk ^ ((row & 1) | (row >> 3 & 3) << 1))) * 16;
}

/// The block's features of a weight to shared memory, with zeros past rank and features.
template <typename T, bool kWide, bool kTransposed>
__device__ __forceinline__ void stage_weight(const RankUpdate& update, int first_feature, int features,
                                             std::uint32_t base) {
  const auto* weight = static_cast<const T*>(update.weight);
  const auto rank = static_cast<int>(update.rank);
  const int depth = (rank + kUpdateDepth - 1) / kUpdateDepth * kUpdateDepth;
  if constexpr (kTransposed) {
    const int runs = depth / kRun;
    for (int i = static_cast<int>(threadIdx.x); i < kUpdateFeatures * runs; i += kUpdateThreads) {
      const int feature = i / runs;
      const int run = i % runs;
      stage_run<kWide>(base + transposed_place(feature, run / 4, run % 4),
                       weight + static_cast<std::int64_t>(first_feature + feature) * rank, run * kRun, rank,
                       first_feature + feature < features);
    }
  } else {
    constexpr int kRuns = kUpdateFeatures / kRun;
    for (int i = static_cast<int>(threadIdx.x); i < depth * kRuns; i += kUpdateThreads) {
      const int row = i / kRuns;
      const int run = i % kRuns;
      const uint4 words = load_run<kWide>(weight + static_cast<std::int64_t>(row) * features,
                                          first_feature + run * kRun, features, row < rank);
      const int chunk = run / 4 * 4;
      const std::uint32_t offset = base + run % 4 * 4;
      store_shared_u32(offset + place(row, chunk), words.x);
      store_shared_u32(offset + place(row, chunk + 1), words.y);
      store_shared_u32(offset + place(row, chunk + 2), words.z);
      store_shared_u32(offset + place(row, chunk + 3), words.w);
    }
  }
}

/// sums = factor weight for 16 tokens and 32 features. Tile j of a matrix instruction has features 2 j and 2 j + 1 of
/// each run of eight, so that a lane ends with a run of two tokens. The order of the inner dimension is that of
/// multiply_stage() of rank_product.cuh.
template <typename T, bool kTransposed>
__device__ __forceinline__ void multiply_factor(const RankUpdate& update, std::uint32_t weight, int first_token,
                                                int tokens, int block_feature, float (&sums)[4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int quad_row = lane / 4;
  const int quad_lane = lane % 4;
  const int stride = padded_rank(update.rank);
  const auto* factor = static_cast<const T*>(update.factor);
  // Row lane % 8 of matrix lane / 8: the inner column that the matrix instruction wants there.
  const int row = lane % 8 / 2 * 8 + lane / 16 * 4 + lane / 8 % 2 * 2 + lane % 2;
  for (int depth = 0; depth * kUpdateDepth < update.rank; ++depth) {
    uint4 runs[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = first_token + i * 8 + quad_row;
      runs[i] = load_run<true>(factor + static_cast<std::int64_t>(token) * stride,
                               depth * kUpdateDepth + quad_lane * kRun, stride, token < tokens);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint4 words;
      if constexpr (kTransposed) {
        const int feature = block_feature + quad_row / 2 * kRun + j * 2 + quad_row % 2;
        words = load_shared_u32x4(weight + transposed_place(feature, depth, quad_lane));
      } else {
        words = load_transposed(weight + place(depth * kUpdateDepth + row, block_feature / kRun + j));
      }
      mma_m16n8k16<T>(sums[j], runs[0].x, runs[1].x, runs[0].y, runs[1].y, words.x, words.y);
      mma_m16n8k16<T>(sums[j], runs[0].z, runs[1].z, runs[0].w, runs[1].w, words.z, words.w);
    }
  }
}

/// totals += mask(round(scale * round(sums))) for the lane's run of features of tokens `token` and token + 8.
template <typename T>
__device__ __forceinline__ void add_update(const UpdateTask& task, const RankUpdate& update, int token, int feature,
                                           const float (&sums)[4][4], float (&totals)[2][kRun]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint4 run = {round_pair<T>(sums[0][2 * i], sums[0][2 * i + 1]), round_pair<T>(sums[1][2 * i], sums[1][2 * i + 1]),
                 round_pair<T>(sums[2][2 * i], sums[2][2 * i + 1]), round_pair<T>(sums[3][2 * i], sums[3][2 * i + 1])};
    if (task.output.scale != 1.0F) run = scale_run<T>(run, task.output.scale);
    if (update.mask != nullptr) {
      const bool present = token + i * 8 < task.output.tokens && feature < task.output.features;
      run = keep_run(run, present ? update.mask[(token + i * 8) * task.output.mask_stride + feature / kRun] : 0);
    }
    const std::uint32_t words[4] = {run.x, run.y, run.z, run.w};
#pragma unroll
    for (int e = 0; e < kRun; e += 2) {
      const float2 values = split_pair<T>(words[e / 2]);
      totals[i][e] += values.x;
      totals[i][e + 1] += values.y;
    }
  }
}

template <typename T>
__device__ __forceinline__ std::uint32_t add_pair(std::uint32_t pair, float first, float second) {
  const float2 values = split_pair<T>(pair);
  return round_pair<T>(values.x + first, values.y + second);
}

template <bool kWide, typename T>
__device__ __forceinline__ void store_run(T* row, int first, int count, bool present, const uint4& run) {
  if (!present) return;
  if constexpr (kWide) {
    if (first < count) *reinterpret_cast<uint4*>(row + first) = run;
  } else {
    const std::uint32_t words[4] = {run.x, run.y, run.z, run.w};
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      if (first + e >= count) continue;
      reinterpret_cast<std::uint16_t*>(row)[first + e] = static_cast<std::uint16_t>(words[e / 2] >> e % 2 * 16);
    }
  }
}

/// Block (tile of features, tile of tokens); a warp has 32 tokens and 64 features, in parts of 16 and 32. All of its
/// output is on the way before the weights are.
template <typename T, bool kWide, bool kTransposed>
__global__ void __launch_bounds__(kUpdateThreads, 2) rank_update_kernel(const __grid_constant__ UpdateTask task) {
  begin_early_kernel();
  extern __shared__ uint4 shared_memory[];
  const std::uint32_t base = shared_address(shared_memory);
  const auto tokens = static_cast<int>(task.output.tokens);
  const auto features = static_cast<int>(task.output.features);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int block_feature = warp / 4 * 64;
  const int first_feature = static_cast<int>(blockIdx.x) * kUpdateFeatures;
  const int first_token = static_cast<int>(blockIdx.y) * kUpdateTokens + warp % 4 * 32;
  const int lane_feature = first_feature + block_feature + lane % 4 * kRun;
  const int lane_token = first_token + lane / 4;
  auto* values = static_cast<T*>(task.output.values);

  constexpr int kParts = 4;
  uint4 output[kParts][2];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = lane_token + part / 2 * 16 + i * 8;
      output[part][i] =
          load_run<kWide>(values + token * task.output.stride, lane_feature + part % 2 * 32, features, token < tokens);
    }
  }
  std::uint32_t weight = base;
  for (int i = 0; i < task.count; ++i) {
    stage_weight<T, kWide, kTransposed>(task.updates[i], first_feature, features, weight);
    weight += update_weight_bytes(task.updates[i].rank);
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();

#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int feature = lane_feature + part % 2 * 32;
    const int part_token = part / 2 * 16;
    float totals[2][kRun] = {};
    weight = base;
    for (int i = 0; i < task.count; ++i) {
      float sums[4][4] = {};
      multiply_factor<T, kTransposed>(task.updates[i], weight, first_token + part_token, tokens,
                                      block_feature + part % 2 * 32, sums);
      add_update<T>(task, task.updates[i], lane_token + part_token, feature, sums, totals);
      weight += update_weight_bytes(task.updates[i].rank);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = lane_token + part_token + i * 8;
      const uint4 run = {add_pair<T>(output[part][i].x, totals[i][0], totals[i][1]),
                         add_pair<T>(output[part][i].y, totals[i][2], totals[i][3]),
                         add_pair<T>(output[part][i].z, totals[i][4], totals[i][5]),
                         add_pair<T>(output[part][i].w, totals[i][6], totals[i][7])};
      store_run<kWide>(values + token * task.output.stride, feature, features, token < tokens, run);
    }
  }
}

}  // namespace qshard::optimized
