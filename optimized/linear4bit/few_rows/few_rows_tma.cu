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
#include "optimized/linear4bit/few_rows/few_rows_consumer.cuh"
#include "optimized/linear4bit/few_rows/few_rows_producer.cuh"
#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/linear4bit/own_product.cuh"
#include "optimized/linear4bit/work_split.h"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/uniform.cuh"

namespace qshard::optimized::few_rows {

namespace {

/// The products of one launch: each has thread blocks of its own.
template <typename T, int kProducts>
struct Products {
  Task<T> tasks[kProducts];
  CUtensorMap codes[kProducts];
  CUtensorMap absmax_codes[kProducts];  // where they are copied with each segment
};

/// y = x W^T for very few rows, at the speed of reading W: one warp copies tiles of W to shared memory, the others
/// multiply them. Before earlier kernels are done only the table and of a resident weight the first tile and the nested
/// statistics are read, and x is brought to the L2 cache, whatever is written there then. A thread block fills a
/// multiprocessor, so that it begins when the one before there ends, while others still work: what needs no memory is
/// done before that wait.
template <typename T, int kRows, ScaleSource kSource, int kProducts>
__global__ void __launch_bounds__(kMostThreads, 1)
    few_rows_tma_kernel(const __grid_constant__ Products<T, kProducts> products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  SharedMemory& shared = *reinterpret_cast<SharedMemory*>(memory);
  trigger_programmatic_launch_completion();
  const int product = own_product(products.tasks);
  const Task<T>& task = products.tasks[product];
  const int warp = uniform(static_cast<int>(threadIdx.x / 32));
  if (warp == static_cast<int>(blockDim.x / 32) - 1) {
    if (threadIdx.x % 32 == 0) {
      prefetch_tensor_map(products.codes[product]);
      if (kSource == ScaleSource::segment) prefetch_tensor_map(products.absmax_codes[product]);
      shared.prepare(task.tiles);
    }
    __syncwarp();
    named_barrier_arrive<kReady>(static_cast<int>(blockDim.x));
    Producer<T, kSource> producer(task, products.codes[product], products.absmax_codes[product], shared);
    if (!task.resident) grid_dependency_synchronize();
    producer.copy_tiles();
  } else if (warp < task.tiles.warps()) {
    multiply_tiles<T, kRows, kSource>(task, shared, warp);
  } else {
    named_barrier_arrive<kReady>(static_cast<int>(blockDim.x));  // a product beside it has more warps
  }
#endif
}

/// A product of a launch, whose thread blocks begin with `first_block`.
template <typename T>
Task<T> task_of(const Linear4bitProblem& problem, const Linear4bitCall& call, int first_block, Tiles tiles) {
  const Linear4bitShape& shape = problem.shape;
  const int rows = static_cast<int>(problem.rows);
  const int most = kPartials / (rows * tiles.tile_rows());
  tiles.batch = static_cast<int>(block_count(tiles.row_tiles, block_count(tiles.row_tiles, most)));
  return {first_block,
          tiles,
          scale_layout(call.weight, shape.out_features, shape.in_features, tiles),
          copied_pieces(shape.in_features),
          BlockScales(call.weight),
          CodebookValues(shape.quant_type),
          std::countr_zero(static_cast<unsigned>(shape.blocksize)),
          static_cast<int>(shape.in_features / shape.blocksize),
          static_cast<int>(shape.out_features),
          static_cast<int>(shape.in_features),
          static_cast<const T*>(call.in),
          call.in_stride,
          rows,
          static_cast<T*>(call.out),
          call.out_stride,
          call.weight.resident};
}

/// The codes as [pieces][rows][piece], for copies of a segment; where each chunk is a copy as [rows][bytes].
template <typename T>
CUtensorMap map_of_codes(const Task<T>& task, const std::uint8_t* codes) {
  const std::int64_t row_bytes = task.in_features / 2;
  if (task.pieces == 0) {
    return byte_tensor_map(codes, {row_bytes, task.out_features, 1}, {row_bytes, row_bytes},
                           {kChunkBytes, kHalfRows, 1}, CU_TENSOR_MAP_SWIZZLE_128B);
  }
  const int bytes = kChunkBytes / task.pieces;
  return byte_tensor_map(codes, {bytes, task.out_features, row_bytes / bytes}, {row_bytes, bytes},
                         {bytes, kHalfRows, task.tiles.warps_a_row * task.pieces},
                         task.pieces == 1 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
}

template <typename T>
CUtensorMap map_of_scales(const Task<T>& task, const std::uint8_t* absmax_codes) {
  const std::int64_t row_bytes = task.in_features / kGroupElements;
  const int box = task.scale_layout.pitch;
  return byte_tensor_map(absmax_codes, {row_bytes, task.out_features}, {row_bytes}, {box, kHalfRows},
                         box == 64    ? CU_TENSOR_MAP_SWIZZLE_64B
                         : box == 128 ? CU_TENSOR_MAP_SWIZZLE_128B
                                      : CU_TENSOR_MAP_SWIZZLE_NONE);
}

template <typename T, int kRows, ScaleSource kSource, int kProducts>
void launch(const Products<T, kProducts>& products, cudaStream_t stream) {
  const auto kernel = few_rows_tma_kernel<T, kRows, kSource, kProducts>;
  constexpr int kBytes = sizeof(SharedMemory);
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const Task<T>& last = products.tasks[kProducts - 1];
  int warps = 0;
  for (const Task<T>& task : products.tasks) warps = std::max(warps, task.tiles.warps());
  launch_early(kernel, dim3(static_cast<unsigned>(last.first_block + last.tiles.thread_blocks)), (warps + 1) * 32,
               kBytes, stream, products);
}

/// The products' tasks; their thread blocks follow each other.
template <typename T>
std::vector<Task<T>> tasks_of(std::span<const Linear4bitProblem* const> problems,
                              std::span<const Linear4bitCall> calls) {
  std::vector<std::int64_t> features;
  for (const Linear4bitProblem* problem : problems) features.push_back(problem->shape.out_features);
  const std::vector<int> shares = shares_of_blocks(problems[0]->device.multiprocessors, features);
  const std::vector<Tiles> cuts =
      cut_products(features, problems[0]->shape.in_features, static_cast<int>(problems[0]->rows), shares);
  int first_block = 0;
  std::vector<Task<T>> tasks;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    tasks.push_back(task_of<T>(*problems[i], calls[i], first_block, cuts[i]));
    first_block += tasks.back().tiles.thread_blocks;
  }
  return tasks;
}

/// Returns false, and does nothing, where the products' scales are not all read in one way.
template <typename T, int kProducts>
bool cut_and_launch(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls) {
  const std::vector<Task<T>> tasks = tasks_of<T>(problems, calls);
  const ScaleSource source = tasks[0].scale_layout.source;
  if (std::ranges::any_of(tasks, [&](const Task<T>& task) { return task.scale_layout.source != source; })) return false;
  auto products = [&]<std::size_t... i>(std::index_sequence<i...>) {
    return Products<T, kProducts>{{tasks[i]...}, {}, {}};
  }
  (std::make_index_sequence<kProducts>());
  for (int i = 0; i < kProducts; ++i) {
    products.codes[i] = map_of_codes(tasks[i], calls[i].weight.codes);
    if (source == ScaleSource::segment)
      products.absmax_codes[i] = map_of_scales(tasks[i], calls[i].weight.absmax_codes);
  }
  const auto launch_for = [&]<int kRows>(std::integral_constant<int, kRows>) {
    const auto run = source == ScaleSource::segment        ? launch<T, kRows, ScaleSource::segment, kProducts>
                     : source == ScaleSource::thread_block ? launch<T, kRows, ScaleSource::thread_block, kProducts>
                                                           : launch<T, kRows, ScaleSource::lane, kProducts>;
    run(products, calls[0].stream);
  };
  switch (tasks[0].tiles.beside ? 1 : most_rows(static_cast<int>(problems[0]->rows))) {
    case 1:
      launch_for(std::integral_constant<int, 1>{});
      break;
    case 2:
      launch_for(std::integral_constant<int, 2>{});
      break;
    default:
      launch_for(std::integral_constant<int, 4>{});
  }
  return true;
}

}  // namespace

bool tma_supports(const Linear4bitProblem& problem) {
  const Linear4bitShape& shape = problem.shape;
  return supports(problem) && problem.device.has_warpgroups &&
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
