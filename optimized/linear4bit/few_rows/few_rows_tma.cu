#include <algorithm>
#include <bit>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/few_rows/few_rows.h"
#include "optimized/linear4bit/few_rows/few_rows_chunk.cuh"
#include "optimized/linear4bit/few_rows/few_rows_scales.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/tensor_copy.cuh"

namespace qshard::optimized::few_rows {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// The producer: one lane copies tile after tile, as far ahead as there are stages.
template <bool kStagedScales>
__device__ void copy_tiles(const Tiles& tiles, const CUtensorMap& codes, const CUtensorMap& absmax_codes,
                           SharedMemory& shared) {
  Stage stage;
  for (int begin = 0; begin < tiles.row_tiles; begin += tiles.batch) {
    for (int segment = 0; segment < tiles.segments; ++segment) {
      for (int row_tile = begin; row_tile < min(begin + tiles.batch, tiles.row_tiles); ++row_tile) {
        mbarrier_wait(shared_address(&shared.empty[stage.stage]), stage.parity ^ 1);
        const std::uint32_t barrier = shared_address(&shared.full[stage.stage]);
        int halves = 0;
        for (int team = 0; team < tiles.teams(); ++team) halves += shared.halves(team, row_tile);
        mbarrier_arrive_expect_tx(
            barrier, halves * tiles.warps_a_row * kHalfRows * (kChunkBytes + (kStagedScales ? kChunkGroups : 0)));
        const int chunk = segment * tiles.warps_a_row;
        for (int team = 0; team < tiles.teams(); ++team) {
          const int first_warp = team * tiles.warps_a_row;
          for (int half = 0; half < shared.halves(team, row_tile); ++half) {
            const int row = (shared.first_unit[team] + 2 * row_tile + half) * kHalfRows;
            tma_load(shared_address(shared.codes[stage.stage][half][first_warp]), codes, 0, row, chunk, barrier);
            if constexpr (kStagedScales) {
              tma_load(shared_address(shared.absmax_codes[stage.stage][half][first_warp]), absmax_codes,
                       chunk * kChunkGroups, row, barrier);
            }
          }
        }
        stage.advance();
      }
    }
  }
}

/// Adds up the sums of a batch of row tiles, over groups and warps in their order, and stores y.
template <typename T>
__device__ void store_batch(const Task<T>& task, const SharedMemory& shared, int kept_apart, int begin, int end) {
  const Tiles& tiles = task.tiles;
  const int width = (end - begin) * task.rows * kTileRows * kept_apart;
  for (int i = static_cast<int>(threadIdx.x); i < tiles.teams() * width; i += kConsumers) {
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
__device__ __forceinline__ void multiply_tiles(const Task<T>& task, SharedMemory& shared) {
  using Input = InputChunk<T, kRows>;
  const PairTable table(shared.table);
  const Tiles& tiles = task.tiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int member = warp % tiles.warps_a_row;
  const int row = swizzled_row(lane / 4);
  const int column = 2 * (lane % 4);
  Input input(task.x, task.x_stride, task.rows);
  const auto load_input = [&] {
    grid_dependency_synchronize();
    input.load(member, member < tiles.chunks);
  };
  if (!task.resident) load_input();
  Scales<T, kRows, kStagedScales> scales(task, shared);
  if (task.resident) load_input();

  Stage stage;
  for (int begin = 0; begin < tiles.row_tiles; begin += tiles.batch) {
    const int end = min(begin + tiles.batch, tiles.row_tiles);
    for (int segment = 0; segment < tiles.segments; ++segment) {
      const int chunk = segment * tiles.warps_a_row + member;
      const int next_segment = segment + 1 < tiles.segments ? segment + 1 : 0;
      const int next_chunk = next_segment * tiles.warps_a_row + member;
      input.use();
      input.load(next_chunk, next_chunk < tiles.chunks);
      scales.start(begin, chunk);
      float* partials = shared.partials[warp] + (column % kRows * kTileRows + row) * Input::kGroups + column / kRows;
#pragma unroll 1
      for (int row_tile = begin; row_tile < end; ++row_tile) {
        mbarrier_wait(shared_address(&shared.full[stage.stage]), stage.parity);
        float scale[Input::kSums][2];
        scales.decode(scale, shared, stage.stage);
        if (row_tile + 1 < end) {
          scales.load(row_tile + 1, chunk);
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
        if (lane == 0) mbarrier_arrive(shared_address(&shared.empty[stage.stage]));
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
    named_barrier_sync<1, kConsumers>();
    store_batch(task, shared, Input::kGroups, begin, end);
    if (end < tiles.row_tiles) named_barrier_sync<1, kConsumers>();
  }
}

#endif

/// The products of one launch: each has thread blocks of its own.
template <typename T, int kProducts>
struct Products {
  Task<T> tasks[kProducts];
  CUtensorMap codes[kProducts];
  CUtensorMap absmax_codes[kProducts];

  [[nodiscard]] __device__ __forceinline__ int own() const {
    int product = 0;
#pragma unroll
    for (int other = 1; other < kProducts; ++other) {
      if (static_cast<int>(blockIdx.x) >= tasks[other].first_block) product = other;
    }
    return product;
  }
};

/// y = x W^T for very few rows, at the speed of reading W: one warp copies tiles of W to shared memory, the others
/// multiply them. All but the table and a resident weight is read after earlier kernels are done.
template <typename T, int kRows, bool kStagedScales, int kProducts>
__global__ void __launch_bounds__(kThreads, 1)
    few_rows_tma_kernel(const __grid_constant__ Products<T, kProducts> products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  SharedMemory& shared = *reinterpret_cast<SharedMemory*>(memory);
  trigger_programmatic_launch_completion();
  const int product = products.own();
  const Task<T>& task = products.tasks[product];
  const int warp = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0);  // known to be uniform
  if (warp == kWarps) {
    shared.prepare(task, static_cast<int>(threadIdx.x) - kConsumers);
  } else {
    PairTable(shared.table).fill<T>(task.codebook, kConsumers);
  }
  __syncthreads();
  if (warp == kWarps) {
    if (!task.resident) grid_dependency_synchronize();
    if (threadIdx.x == kConsumers) {
      copy_tiles<kStagedScales>(task.tiles, products.codes[product], products.absmax_codes[product], shared);
    }
    return;
  }
  multiply_tiles<T, kRows, kStagedScales>(task, shared);
#endif
}

/// A product of a launch, cut for `multiprocessors` of them from `first_block` on.
template <typename T>
Task<T> task_of(const Linear4bitProblem& problem, const Linear4bitCall& call, int first_block, int multiprocessors) {
  const Linear4bitShape& shape = problem.shape;
  auto [tiles, thread_blocks] = cut_into_tiles(shape.out_features, shape.in_features, multiprocessors);
  const int rows = static_cast<int>(problem.rows);
  const int most = kPartials / (rows * kTileRows * (8 / most_rows(rows)));
  tiles.batch = static_cast<int>(block_count(tiles.row_tiles, block_count(tiles.row_tiles, most)));
  return {first_block,
          thread_blocks,
          tiles,
          BlockScales(call.weight),
          CodebookValues(shape.quant_type),
          std::countr_zero(static_cast<unsigned>(shape.blocksize)),
          shape.out_features,
          static_cast<const T*>(call.in),
          call.in_stride,
          rows,
          static_cast<T*>(call.out),
          call.out_stride,
          call.weight.resident};
}

template <typename T, int kProducts>
void add_maps(Products<T, kProducts>& products, int product, const Linear4bitProblem& problem,
              const Linear4bitCall& call, bool staged) {
  const Linear4bitShape& shape = problem.shape;
  const Tiles& tiles = products.tasks[product].tiles;
  products.codes[product] = byte_tensor_map(call.weight.codes, {kChunkBytes, shape.out_features, tiles.chunks},
                                            {shape.in_features / 2, kChunkBytes},
                                            {kChunkBytes, kHalfRows, tiles.warps_a_row}, CU_TENSOR_MAP_SWIZZLE_128B);
  if (!staged) return;
  products.absmax_codes[product] =
      byte_tensor_map(call.weight.absmax_codes, {tiles.chunks * kChunkGroups, shape.out_features},
                      {tiles.chunks * kChunkGroups}, {tiles.warps_a_row * kChunkGroups, kHalfRows},
                      tiles.warps_a_row == kWarps ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_NONE);
}

template <typename T, int kRows, bool kStagedScales, int kProducts>
void launch(const Products<T, kProducts>& products, cudaStream_t stream) {
  const auto kernel = few_rows_tma_kernel<T, kRows, kStagedScales, kProducts>;
  constexpr int kBytes = sizeof(SharedMemory);
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const Task<T>& last = products.tasks[kProducts - 1];
  launch_early(kernel, dim3(static_cast<unsigned>(last.first_block + last.thread_blocks)), kThreads, kBytes, stream,
               products);
}

/// The products' tasks; their thread blocks follow each other.
template <typename T>
std::vector<Task<T>> tasks_of(std::span<const Linear4bitProblem* const> problems,
                              std::span<const Linear4bitCall> calls) {
  std::int64_t features = 0;
  for (const Linear4bitProblem* problem : problems) features += problem->shape.out_features;
  int blocks = problems[0]->device.multiprocessors;
  int first_block = 0;
  std::vector<Task<T>> tasks;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const std::int64_t own = problems[i]->shape.out_features;
    const int share = share_of_blocks(blocks, own, features, static_cast<int>(problems.size() - i) - 1);
    tasks.push_back(task_of<T>(*problems[i], calls[i], first_block, share));
    first_block += tasks.back().thread_blocks;
    blocks -= share;
    features -= own;
  }
  return tasks;
}

/// Returns false, and does nothing, where the products' scales are not all read in one way.
template <typename T, int kProducts>
bool cut_and_launch(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls) {
  const std::vector<Task<T>> tasks = tasks_of<T>(problems, calls);
  int staged = 0;
  for (int i = 0; i < kProducts; ++i) staged += can_stage_scales(calls[i].weight, tasks[i].tiles) ? 1 : 0;
  if (staged != 0 && staged != kProducts) return false;
  auto products = [&]<std::size_t... i>(std::index_sequence<i...>) {
    return Products<T, kProducts>{{tasks[i]...}, {}, {}};
  }
  (std::make_index_sequence<kProducts>());
  for (int i = 0; i < kProducts; ++i) add_maps(products, i, *problems[i], calls[i], staged != 0);
  const auto launch_for = [&]<int kRows>(std::integral_constant<int, kRows>) {
    const auto run = staged != 0 ? launch<T, kRows, true, kProducts> : launch<T, kRows, false, kProducts>;
    run(products, calls[0].stream);
  };
  if (most_rows(static_cast<int>(problems[0]->rows)) == 2) {
    launch_for(std::integral_constant<int, 2>{});
  } else {
    launch_for(std::integral_constant<int, 4>{});
  }
  return true;
}

}  // namespace

bool tma_supports(const Linear4bitProblem& problem) {
  const Linear4bitShape& shape = problem.shape;
  return supports(problem) && problem.device.has_warpgroups && shape.in_features % kChunk == 0 &&
         shape.out_features <= std::numeric_limits<std::int32_t>::max() / 2;
}

void tma_run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitProblem* const problems[] = {&problem};
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) {
    cut_and_launch<T, 1>(problems, {&call, 1});
  });
}

bool tma_run_together(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls,
                      std::size_t /*available*/) {
  bool done = false;
  dispatch_16bit(problems[0]->shape.dtype, [&]<typename T>(std::type_identity<T>) {
    if (problems.size() == 2) done = cut_and_launch<T, 2>(problems, calls);
    if (problems.size() == 3) done = cut_and_launch<T, 3>(problems, calls);
  });
  return done;
}

}  // namespace qshard::optimized::few_rows
