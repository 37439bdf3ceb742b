#pragma once

#include "optimized/linear4bit/few_rows/few_rows_chunk.cuh"
#include "optimized/linear4bit/few_rows/few_rows_scales.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// Adds up the sums of a batch of row tiles, over the team's warps in their order, and stores y.
template <typename T, int kRows>
__device__ void store_batch(const Task<T>& task, const SharedMemory& shared, int begin, int end) {
  const Tiles& tiles = task.tiles;
  const int team = static_cast<int>(threadIdx.x) / 32 / tiles.warps_a_row;
  const int first_warp = team * tiles.warps_a_row;
  constexpr int kTile = kTileRows<kRows>;
  const std::int64_t first = static_cast<std::int64_t>(shared.first_unit[team]) * kHalfRows + begin * kTile;
  const int features = static_cast<int>(min((end - begin) * kTile + first, task.end_row(team + 1)) - first);
  for (int i = static_cast<int>(threadIdx.x) - first_warp * 32; i < features; i += tiles.warps_a_row * 32) {
    for (int row = 0; row < task.rows; ++row) {
      const float* const sums = shared.partials[first_warp] + (i / kTile * task.rows + row) * kTile + i % kTile;
      float sum = 0.0F;
      for (int warp = 0; warp < tiles.warps_a_row; ++warp) sum += sums[warp * kPartials];
      *reinterpret_cast<std::uint16_t*>(task.y + row * task.y_stride + first + i) =
          static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
    }
  }
}

/// Adds up a lane's sums over the groups of its chunk, and over halves beside each other, so that no two lanes end with
/// the same of them, and keeps them: adds them to what the segments before left. `partials`: of this row tile,
/// [rows][kTileRows].
template <int kRows>
__device__ __forceinline__ void keep_sums(float* partials, int rows, const float (&total)[4], bool first) {
  if constexpr (kBeside<kRows>) {
    float sum = total[0] + total[3];  // the others are of one half of the weight with the other one's x
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
    float& kept = partials[swizzled_row(static_cast<int>(threadIdx.x) % 32 / 4)];
    if (threadIdx.x % 4 == 0) kept = first ? sum : kept + sum;
    return;
  }
  const int quad_lane = static_cast<int>(threadIdx.x) % 4;
  const int half = kRows == 2 ? quad_lane % 2 : quad_lane / 2;
  const int first_row = kRows == 2 ? quad_lane / 2 : quad_lane % 2 * 2;
  float sums[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float given = half == 0 ? total[2 + i] : total[i];
    sums[i] = (half == 0 ? total[i] : total[2 + i]) + __shfl_xor_sync(0xFFFFFFFFU, given, kRows / 2);
  }
  if constexpr (kRows == 2) {
    const float given = first_row == 0 ? sums[1] : sums[0];
    sums[0] = (first_row == 0 ? sums[0] : sums[1]) + __shfl_xor_sync(0xFFFFFFFFU, given, 2);
  }
  float* const place =
      partials + first_row * kTileRows<kRows> + half * kHalfRows + swizzled_row(static_cast<int>(threadIdx.x) % 32 / 4);
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) {
    if (first_row + i >= rows) continue;
    float& sum = place[i * kTileRows<kRows>];
    sum = first ? sums[i] : sum + sums[i];
  }
}

/// The consumers: each warp multiplies its part of every tile of its team.
template <typename T, int kRows, ScaleSource kSource>
__device__ __forceinline__ void multiply_tiles(const Task<T>& task, SharedMemory& shared) {
  using Input = InputChunk<T, kRows>;
  const PairTable table(shared.table);
  const Tiles& tiles = task.tiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int team = warp / tiles.warps_a_row;
  const int member = warp % tiles.warps_a_row;
  const int threads = tiles.warps() * 32;
  if (!task.resident) grid_dependency_synchronize();
  Scales<T, kRows, kSource> scales(task);
  Input input(task);
  if (Input::kAhead && !task.resident) input.load(member);
  table.fill<T>(task.codebook);
  if (task.resident) grid_dependency_synchronize();
  if (Input::kAhead && task.resident) input.load(member);
  scales.share(shared, threads);
  named_barrier_sync_some<kReady>(static_cast<int>(blockDim.x));

  const int half_bytes = tiles.half_bytes();
  // Elsewhere code for teams without a last row tile costs more than it saves.
  constexpr bool kSkips = kSource == ScaleSource::segment;
  const int own_row_tiles = tiles.row_tiles_of(shared.first_unit[team + 1] - shared.first_unit[team]);
  const LaneCodes lane_codes(task.piece == kChunk / 2);
  Stage stage;
  for (int begin = 0; begin < tiles.row_tiles; begin += tiles.batch) {
    const int end = min(begin + tiles.batch, tiles.row_tiles);
    for (int segment = 0; segment < tiles.segments; ++segment) {
      const int chunk = segment * tiles.segment_chunks() + member;
      const bool last = segment + 1 == tiles.segments;
      const int next_chunk = last ? member : chunk + tiles.segment_chunks();
      if (!Input::kAhead) input.load(chunk);
      input.use();
      if (Input::kAhead) input.load(next_chunk);
      scales.start(task, begin, chunk);
      float* partials = shared.partials[warp];
#pragma unroll 1
      for (int row_tile = begin; row_tile < end; ++row_tile) {
        mbarrier_wait(shared_address(&shared.full[stage.stage]), stage.parity);
        float scale[Input::kSums][2];
        scales.decode(scale, shared, stage.stage);
        if (row_tile + 1 < end) {
          scales.load(row_tile + 1, chunk);
        } else {
          scales.load(last ? end : begin, next_chunk);
        }
        float total[4] = {};
        if (chunk < tiles.chunks && (!kSkips || row_tile < own_row_tiles)) {
          const unsigned char* const codes =
              shared.copied + stage.stage * 2 * half_bytes + warp * kHalfRows * kChunkBytes;
          float sums[Input::kSums][4];
          multiply_chunk<T, kRows>(sums, codes, half_bytes, lane_codes, table, input);
#pragma unroll
          for (int s = 0; s < Input::kSums; ++s) {
#pragma unroll
            for (int i = 0; i < 4; ++i) total[i] += scale[s][i / 2] * sums[s][i];
          }
        }
        __syncwarp();
        if (lane == 0) mbarrier_arrive(shared_address(&shared.empty[stage.stage]));
        stage.advance();
        keep_sums<kRows>(partials, task.rows, total, segment == 0);
        partials += task.rows * kTileRows<kRows>;
      }
    }
    named_barrier_sync_some<kConsumers>(threads);
    store_batch<T, kRows>(task, shared, begin, end);
    if (end < tiles.row_tiles) named_barrier_sync_some<kConsumers>(threads);
  }
}

}  // namespace qshard::optimized::few_rows

#endif
