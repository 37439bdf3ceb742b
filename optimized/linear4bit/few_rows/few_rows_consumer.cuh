#pragma once

#include "optimized/linear4bit/few_rows/few_rows_chunk.cuh"
#include "optimized/linear4bit/few_rows/few_rows_scales.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// Waits for the consumers' sums of a batch of row tiles, adds them up over the team's warps in their order, and stores
/// y.
template <typename T, int kRows>
__device__ __forceinline__ void store_batch(const Task<T>& task, const SharedMemory& shared, int team, int begin,
                                            int end) {
  const Tiles& tiles = task.tiles;
  constexpr int kTile = kTileRows<kRows>;
  const RowRange rows = task.rows_of(team);
  const int first = rows.first + begin * kTile;
  const int features = min((end - begin) * kTile, rows.end - first);
  const int first_warp = team * tiles.warps_a_row;
  const float* const team_sums = shared.partials[first_warp];
  T* const y = task.y + first;
  named_barrier_sync_some<kConsumers>(tiles.warps() * 32);
  for (int i = static_cast<int>(threadIdx.x) - first_warp * 32; i < features; i += tiles.warps_a_row * 32) {
    const unsigned feature = i;
    for (int row = 0; row < task.rows; ++row) {
      const float* const sums = team_sums + (feature / kTile * task.rows + row) * kTile + feature % kTile;
      float sum = 0.0F;
      // Without a branch, so that all loads are on their way before the first sum.
#pragma unroll
      for (int warp = 0; warp < kMostWarps; ++warp) {
        if (warp < tiles.warps_a_row) sum += sums[warp * kPartials];
      }
      *reinterpret_cast<std::uint16_t*>(y + row * task.y_stride + feature) =
          static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
    }
  }
}

/// Adds a sum to what the segments before left, for the lanes that hold one. Without a branch, which costs more than
/// what it would leave out.
__device__ __forceinline__ void add_to_kept(float& kept, float sum, bool held, bool first) {
  const float before = held && !first ? kept : 0.0F;
  if (held) kept = before + sum;
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
    add_to_kept(partials[swizzled_row(static_cast<int>(threadIdx.x % 32 / 4))], sum, threadIdx.x % 4 == 0, first);
    return;
  }
  const int quad_lane = static_cast<int>(threadIdx.x % 4);
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
      partials + first_row * kTileRows<kRows> + half * kHalfRows + swizzled_row(static_cast<int>(threadIdx.x % 32 / 4));
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) {
    add_to_kept(place[i * kTileRows<kRows>], sums[i], first_row + i < rows, first);
  }
}

/// The consumers: each warp multiplies its part of every tile of its team.
template <typename T, int kRows, ScaleSource kSource>
__device__ __forceinline__ void multiply_tiles(const Task<T>& task, SharedMemory& shared, int warp) {
  using Input = InputChunk<T, kRows>;
  const PairTable table(shared.table);
  const Tiles& tiles = task.tiles;
  const int team = tiles.team_of(warp);
  const int member = warp - team * tiles.warps_a_row;
  const int threads = tiles.warps() * 32;
  Scales<T, kRows, kSource> scales(task, shared, team, member);
  Input input(task);
  const LaneCodes lane_codes(task.pieces == 2);
  const std::uint32_t first_codes = shared_address(shared.copied) + warp * kHalfRows * kChunkBytes + lane_codes.first;
  const int half_bytes = tiles.half_bytes();
  // Elsewhere code for teams without a last row tile costs more than it saves.
  constexpr bool kSkips = kSource == ScaleSource::segment;
  const int own_row_tiles = tiles.row_tiles_of(tiles.units_of(task.own_block(), team));
  if (task.resident) scales.request(member);
  Input::prefetch(task);
  table.fill<T>(task.codebook);
  grid_dependency_synchronize();
  if (Input::kAhead) input.load(member);
  if (!task.resident) scales.request(member);
  scales.share(shared, threads);
  named_barrier_sync_some<kReady>(static_cast<int>(blockDim.x));

  // Without a test before the loops what is known before the wait is not worked out behind it. Where each lane loads
  // its scales, the compiler would then need an addition more for each look-up.
  if constexpr (kSource != ScaleSource::lane) __builtin_assume(tiles.row_tiles > 0 && tiles.segments > 0);
  Stage stage;
  for (int begin = 0; begin < tiles.row_tiles; begin += tiles.batch) {
    const int end = min(begin + tiles.batch, tiles.row_tiles);
    for (int segment = 0; segment < tiles.segments; ++segment) {
      const int chunk = segment * tiles.segment_chunks() + member;
      const bool last = segment + 1 == tiles.segments;
      const int next_chunk = last ? member : chunk + tiles.segment_chunks();
      if (!Input::kAhead) input.load(chunk);
      input.use();
      if (Input::kAhead && tiles.segments > 1) input.load(next_chunk);
      float* partials = shared.partials[warp];
      const int own = chunk >= tiles.chunks ? 0 : kSkips ? own_row_tiles : end;
      const int not_own = end - own;
#pragma unroll 1
      for (int left = end - begin; left > 0; --left) {
        mbarrier_wait(shared_address(&shared.full[stage.stage]), stage.parity);
        scales.take(shared, stage.stage);
        if (left > 1) {
          scales.load(end - left + 1, chunk);
        } else {
          scales.load(last ? end : begin, next_chunk);
        }
        float total[4] = {};
        if (left > not_own) {
          const std::uint32_t codes = first_codes + stage.stage * 2 * half_bytes;
          float sums[Input::kSums][4];
          multiply_chunk<T, kRows>(sums, codes, half_bytes, lane_codes, table, input);
          float scale[Input::kSums][2];
          scales.decode(scale);
#pragma unroll
          for (int s = 0; s < Input::kSums; ++s) {
#pragma unroll
            for (int i = 0; i < 4; ++i) total[i] += scale[s][i / 2] * sums[s][i];
          }
        }
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(shared_address(&shared.empty[stage.stage]));
        stage.advance();
        keep_sums<kRows>(partials, task.rows, total, segment == 0);
        partials += task.rows * kTileRows<kRows>;
      }
      scales.start(last ? end : begin, next_chunk);
    }
    store_batch<T, kRows>(task, shared, team, begin, end);
    if (end < tiles.row_tiles) named_barrier_sync_some<kConsumers>(threads);
  }
}

}  // namespace qshard::optimized::few_rows

#endif
