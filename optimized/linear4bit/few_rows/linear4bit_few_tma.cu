#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/few_rows/few_rows_chunk.cuh"
#include "optimized/linear4bit/few_rows/few_rows_scales.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/linear4bit/linear4bit_fused.h"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/ptx/tensor_copy.cuh"

namespace qshard::optimized {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// The producer: one lane copies tile after tile, as far ahead as there are stages.
template <bool kStagedScales>
__device__ void copy_tiles(const FewRowsTiles& tiles, const CUtensorMap& codes, const CUtensorMap& absmax_codes,
                           FewRowsShared& shared) {
  TileStage stage;
  for (int begin = 0; begin < tiles.bands; begin += tiles.batch) {
    for (int segment = 0; segment < tiles.segments; ++segment) {
      for (int band = begin; band < min(begin + tiles.batch, tiles.bands); ++band) {
        barrier_wait(shared_address(&shared.empty[stage.stage]), stage.parity ^ 1);
        const std::uint32_t barrier = shared_address(&shared.full[stage.stage]);
        int halves = 0;
        for (int team = 0; team < tiles.teams(); ++team) halves += shared.halves(team, band);
        barrier_expect(barrier,
                       halves * tiles.warps_a_row * kHalfRows * (kChunkBytes + (kStagedScales ? kChunkGroups : 0)));
        const int chunk = segment * tiles.warps_a_row;
        for (int team = 0; team < tiles.teams(); ++team) {
          const int first_warp = team * tiles.warps_a_row;
          for (int half = 0; half < shared.halves(team, band); ++half) {
            const int row = (shared.first_unit[team] + 2 * band + half) * kHalfRows;
            copy_box(shared_address(shared.codes[stage.stage][half][first_warp]), codes, 0, row, chunk, barrier);
            if constexpr (kStagedScales) {
              copy_box(shared_address(shared.absmax_codes[stage.stage][half][first_warp]), absmax_codes,
                       chunk * kChunkGroups, row, barrier);
            }
          }
        }
        stage.advance();
      }
    }
  }
}

/// Adds up the sums of a batch of bands, over groups and warps in their order, and stores y.
template <typename T>
__device__ void store_batch(const FewRowsTask<T>& task, const FewRowsShared& shared, int kept_apart, int begin,
                            int end) {
  const FewRowsTiles& tiles = task.tiles;
  const int width = (end - begin) * task.rows * kTileRows * kept_apart;
  for (int i = static_cast<int>(threadIdx.x); i < tiles.teams() * width; i += kWorkers) {
    const int team = i / width;
    const float* const first = shared.partials[team * tiles.warps_a_row] + i % width;
    float sum = 0.0F;
    for (int warp = 0; warp < tiles.warps_a_row; ++warp) sum += first[warp * kPartials];
    for (int step = 1; step < kept_apart; step *= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, step);
    const int output = i % width / kept_apart;
    const int row = output / kTileRows % task.rows;
    const std::int64_t feature = static_cast<std::int64_t>(shared.first_unit[team]) * kHalfRows +
                                 (begin + output / kTileRows / task.rows) * kTileRows + output % kTileRows;
    const std::int64_t team_end = static_cast<std::int64_t>(shared.first_unit[team + 1]) * kHalfRows;
    if (i % kept_apart != 0 || feature >= min(team_end, task.out_features)) continue;
    *reinterpret_cast<std::uint16_t*>(task.y + row * task.y_stride + feature) =
        static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
  }
}

/// The consumers: each warp multiplies its chunk of every tile.
template <typename T, int kRows, bool kStagedScales>
__device__ __forceinline__ void multiply_tiles(const FewRowsTask<T>& task, FewRowsShared& shared) {
  using Input = InputChunk<T, kRows>;
  const PairTable table(shared.table);
  const FewRowsTiles& tiles = task.tiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int member = warp % tiles.warps_a_row;
  const int row = swizzled_row(lane / 4);
  const int column = 2 * (lane % 4);
  Input input(task.x, task.x_stride, task.rows);
  input.load(member, member < tiles.chunks);
  FewRowsScales<T, kRows, kStagedScales> scales(task, shared);

  TileStage stage;
  for (int begin = 0; begin < tiles.bands; begin += tiles.batch) {
    const int end = min(begin + tiles.batch, tiles.bands);
    for (int segment = 0; segment < tiles.segments; ++segment) {
      const int chunk = segment * tiles.warps_a_row + member;
      const int next_segment = segment + 1 < tiles.segments ? segment + 1 : 0;
      const int next_chunk = next_segment * tiles.warps_a_row + member;
      input.use();
      input.load(next_chunk, next_chunk < tiles.chunks);
      scales.start(begin, chunk);
      float* partials = shared.partials[warp] + (column % kRows * kTileRows + row) * Input::kGroups + column / kRows;
#pragma unroll 1
      for (int band = begin; band < end; ++band) {
        barrier_wait(shared_address(&shared.full[stage.stage]), stage.parity);
        float scale[Input::kSums][2];
        scales.decode(scale, shared, stage.stage);
        if (band + 1 < end) {
          scales.load(band + 1, chunk);
        } else {
          scales.load(next_segment == 0 ? end : begin, next_chunk);
        }
        float total[4] = {};
        if (chunk < tiles.chunks) {
          float sums[Input::kSums][4];
          multiply_chunk<T, kRows>(sums, shared.codes[stage.stage][0][warp], shared.codes[stage.stage][1][warp], table,
                                   input);
#pragma unroll
          for (int s = 0; s < Input::kSums; ++s) {
#pragma unroll
            for (int i = 0; i < 4; ++i) total[i] += scale[s][i / 2] * sums[s][i];
          }
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(shared_address(&shared.empty[stage.stage]));
        stage.advance();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (column % kRows + i % 2 >= task.rows) continue;
          float& sum = partials[(i % 2 * kTileRows + i / 2 * kHalfRows) * Input::kGroups];
          sum = segment == 0 ? total[i] : sum + total[i];
        }
        partials += task.rows * kTileRows * Input::kGroups;
      }
    }
    workers_meet();
    store_batch(task, shared, Input::kGroups, begin, end);
    if (end < tiles.bands) workers_meet();
  }
}

#endif

/// y = x W^T for very few rows, at the speed of reading W: one warp copies tiles of W to shared memory, the others
/// multiply them. All but the table is read after earlier kernels are done.
template <typename T, int kRows, bool kStagedScales>
__global__ void __launch_bounds__(kThreads, 1)
    few_rows_tma_kernel(const __grid_constant__ FewRowsTask<T> task, const __grid_constant__ CUtensorMap codes,
                        const __grid_constant__ CUtensorMap absmax_codes) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  FewRowsShared& shared = *reinterpret_cast<FewRowsShared*>(memory);
  let_next_kernel_start();
  const int warp = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0);  // known to be uniform
  if (warp == kWarps) {
    shared.prepare(task.tiles, task.out_features, static_cast<int>(threadIdx.x) - kWorkers);
  } else {
    PairTable(shared.table).fill<T>(task.codebook, kWorkers);
  }
  __syncthreads();
  wait_for_earlier_kernels();
  if (warp == kWarps) {
    if (threadIdx.x == kWorkers) copy_tiles<kStagedScales>(task.tiles, codes, absmax_codes, shared);
    return;
  }
  multiply_tiles<T, kRows, kStagedScales>(task, shared);
#endif
}

template <typename T, int kRows, bool kStagedScales>
void launch(FewRowsTask<T> task, const Linear4bit& layer, unsigned grid, cudaStream_t stream) {
  const DeviceWeight4bit& weight = layer.weight;
  FewRowsTiles& tiles = task.tiles;
  const int most = kPartials / (task.rows * kTileRows * (8 / kRows));
  tiles.batch = static_cast<int>(block_count(tiles.bands, block_count(tiles.bands, most)));
  const CUtensorMap codes = byte_tensor_map(weight.codes, {kChunkBytes, layer.out_features, tiles.chunks},
                                            {layer.in_features / 2, kChunkBytes},
                                            {kChunkBytes, kHalfRows, tiles.warps_a_row}, CU_TENSOR_MAP_SWIZZLE_128B);
  CUtensorMap absmax_codes{};
  if (kStagedScales) {
    absmax_codes =
        byte_tensor_map(weight.absmax_codes, {tiles.chunks * kChunkGroups, layer.out_features},
                        {tiles.chunks * kChunkGroups}, {tiles.warps_a_row * kChunkGroups, kHalfRows},
                        tiles.warps_a_row == kWarps ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_NONE);
  }
  const auto kernel = few_rows_tma_kernel<T, kRows, kStagedScales>;
  constexpr int kBytes = sizeof(FewRowsShared);
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  launch_early(kernel, dim3(grid), kThreads, kBytes, stream, task, codes, absmax_codes);
}

template <typename T>
void plan_and_launch(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                     std::int64_t y_stride, cudaStream_t stream) {
  const int multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
  FewRowsTiles tiles = cut_into_tiles(layer.out_features, layer.in_features, multiprocessors);
  const std::int64_t units = block_count(layer.out_features, kHalfRows);
  const std::int64_t grid = std::min<std::int64_t>(multiprocessors, block_count(units, tiles.teams() * 2));
  tiles.bands = static_cast<int>(block_count(block_count(units, grid * tiles.teams()), 2));
  const FewRowsTask<T> task{tiles,
                            BlockScales(layer.weight),
                            CodebookValues(layer.weight.quant_type),
                            std::countr_zero(static_cast<unsigned>(layer.weight.blocksize)),
                            layer.out_features,
                            static_cast<const T*>(x),
                            x_stride,
                            static_cast<int>(rows),
                            static_cast<T*>(y),
                            y_stride};
  const bool staged = can_stage_scales(layer.weight, tiles);
  const auto launch_for = [&](auto most_rows) {
    constexpr int kRows = decltype(most_rows)::value;
    const auto run = staged ? launch<T, kRows, true> : launch<T, kRows, false>;
    run(task, layer, static_cast<unsigned>(grid), stream);
  };
  if (rows <= 2) {
    launch_for(std::integral_constant<int, 2>{});
  } else {
    launch_for(std::integral_constant<int, 4>{});
  }
}

}  // namespace

bool few_rows_tma_takes(const Linear4bit& layer) {
  return has_warpgroups() && layer.weight.blocksize >= kGroupElements && layer.in_features % kChunk == 0 &&
         layer.out_features <= std::numeric_limits<std::int32_t>::max() / 2;
}

void linear4bit_few_rows_tma(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                             std::int64_t y_stride, cudaStream_t stream) {
  if (layer.dtype == DType::bf16) {
    plan_and_launch<__nv_bfloat16>(layer, x, x_stride, rows, y, y_stride, stream);
  } else {
    plan_and_launch<__half>(layer, x, x_stride, rows, y, y_stride, stream);
  }
}

}  // namespace qshard::optimized
