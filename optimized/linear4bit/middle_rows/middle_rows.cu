#include <algorithm>
#include <bit>
#include <limits>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/middle_rows/middle_rows.h"
#include "optimized/linear4bit/middle_rows/middle_rows_dequantizer.cuh"
#include "optimized/linear4bit/middle_rows/middle_rows_multiplier.cuh"
#include "optimized/linear4bit/warpgroup/nested_map.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized::middle_rows {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, bool kForward, int kColumns>
__device__ __forceinline__ void multiply(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& input,
                                         unsigned char* smem) {
  trigger_programmatic_launch_completion();
  SharedMemory<kColumns> shared{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  asm("" : "+r"(shared.first));  // kept, not computed again
  if (threadIdx.x == kMultipliers) {
    prefetch_tensor_map(codes);
    prefetch_tensor_map(input);
    Dequantizer<T, kForward, kColumns>::init_barriers(shared);
  }
  grid_dependency_synchronize();
  warpgroup::fill_map(task.scales, shared.map());
  cluster_sync();
  // A shuffle tells the compiler that all of a warp takes one way.
  if (__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0) < kMultiplierWarps) {
    Multiplier<T, kForward, kColumns>(task, shared).run();
  } else {
    Dequantizer<T, kForward, kColumns>(task, codes, input, shared).run();
  }
  cluster_sync();  // the other thread block copies to this one and arrives at its barriers until it is done
}

#endif

template <typename T, bool kForward, int kColumns>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(SharedMemory<kColumns>::kThreads, 1)
    middle_rows_kernel(const __grid_constant__ Task<T> task, const __grid_constant__ CUtensorMap codes,
                       const __grid_constant__ CUtensorMap input) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  multiply<T, kForward, kColumns>(task, codes, input, smem);
#else
  __trap();
#endif
}

constexpr int kClearThreads = 256;

/// Sets the counts of arrivals to zero. Only when it is done the product's kernel goes on.
__global__ void __launch_bounds__(kClearThreads) clear_kernel(int* arrivals, int count) {
  begin_early_kernel();
  const int i = static_cast<int>(blockIdx.x) * kClearThreads + static_cast<int>(threadIdx.x);
  if (i < count) arrivals[i] = 0;
}

/// Of a cluster: with fewer the sums of shared tiles take longer than what is saved.
constexpr int kLeastSteps = 16;

/// Bytes of the input, beside what else passes through the L2 cache of 50 MiB.
constexpr std::int64_t kInputThatStays = std::int64_t{32} << 20;

/// How the work is cut, and where things are in the workspace.
struct Cut {
  ColumnCut columns;
  int tiles;
  TileOrder order;
  std::size_t partial_bytes;
  std::size_t arrival_bytes;

  explicit Cut(const Linear4bitProblem& problem)
      : columns(problem.rows),
        tiles(static_cast<int>(block_count(problem.out_width(), kTileFeatures)) * columns.tiles),
        order(tiles, static_cast<int>(block_count(problem.in_width(), kStep)),
              std::max(1, (problem.device.multiprocessors - problem.device.busy) / kCluster), kLeastSteps,
              problem.rows * problem.in_width() * 2 <= kInputThatStays) {
    const int shared = tiles - order.whole;
    const std::size_t sums = static_cast<std::size_t>(kCluster) * columns.columns * kTileFeatures;
    partial_bytes = shared > 0 ? static_cast<std::size_t>(order.rest.slots()) * sums * sizeof(float) : 0;
    arrival_bytes = static_cast<std::size_t>(shared) * kCluster * kMultiplierWarps * sizeof(int);
  }
};

template <typename T, bool kForward, int kColumns>
void launch_kernel(const Task<T>& task, const Linear4bitProblem& problem, const Linear4bitCall& call) {
  constexpr std::uint32_t kShared = SharedMemory<kColumns>::kBytes;
  const CUtensorMap codes = byte_tensor_map(call.weight.codes, {task.in_features / 2, task.out_features},
                                            {task.in_features / 2}, {kStep / 2, 32}, CU_TENSOR_MAP_SWIZZLE_32B);
  const CUtensorMap input =
      byte_tensor_map(static_cast<const std::uint8_t*>(call.in), {problem.in_width() * 2, problem.rows},
                      {call.in_stride * 2}, {kStep * 2, kColumns}, CU_TENSOR_MAP_SWIZZLE_128B);
  const auto kernel = middle_rows_kernel<T, kForward, kColumns>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  launch_early(kernel, dim3(static_cast<unsigned>(task.order.clusters * kCluster)), SharedMemory<kColumns>::kThreads,
               kShared, call.stream, task, codes, input);
}

template <typename T, bool kForward>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitShape& shape = problem.shape;
  const Cut cut(problem);
  auto* const partials = static_cast<std::byte*>(call.workspace);
  auto* const arrivals = reinterpret_cast<int*>(partials + cut.partial_bytes);
  const Task<T> task{BlockScales(call.weight),
                     CodebookValues(shape.quant_type),
                     std::countr_zero(static_cast<unsigned>(shape.blocksize)),
                     static_cast<int>(shape.in_features),
                     static_cast<int>(shape.out_features),
                     static_cast<int>(problem.out_width()),
                     static_cast<int>(problem.rows),
                     static_cast<T*>(call.out),
                     call.out_stride,
                     reinterpret_cast<float*>(partials),
                     arrivals,
                     cut.order,
                     cut.order.rest,
                     cut.tiles,
                     cut.columns.tiles,
                     reinterpret_cast<std::uintptr_t>(call.out) % 4 == 0 && call.out_stride % 2 == 0};
  const auto arrival_count = static_cast<int>(cut.arrival_bytes / sizeof(int));
  if (arrival_count > 0) {
    launch_early(clear_kernel, dim3(static_cast<unsigned>(block_count(arrival_count, kClearThreads))), kClearThreads, 0,
                 call.stream, arrivals, arrival_count);
  }
  switch (cut.columns.columns) {
    case 64:
      return launch_kernel<T, kForward, 64>(task, problem, call);
    case 96:
      return launch_kernel<T, kForward, 96>(task, problem, call);
    case 128:
      return launch_kernel<T, kForward, 128>(task, problem, call);
    case 144:
      return launch_kernel<T, kForward, 144>(task, problem, call);
    case 160:
      return launch_kernel<T, kForward, 160>(task, problem, call);
    case 192:
      return launch_kernel<T, kForward, 192>(task, problem, call);
    case 200:
      return launch_kernel<T, kForward, 200>(task, problem, call);
    case 224:
      return launch_kernel<T, kForward, 224>(task, problem, call);
    default:
      return launch_kernel<T, kForward, 256>(task, problem, call);
  }
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
  constexpr std::int64_t kMostSteps = std::int64_t{1} << 30;
  const Linear4bitShape& shape = problem.shape;
  return problem.device.has_warpgroups && shape.dtype != DType::f32 && shape.blocksize >= kStep &&
         problem.whole_blocks() && shape.out_features * shape.in_features / shape.blocksize <= kMost &&
         std::max({problem.rows, shape.out_features, shape.in_features}) <= kMost &&
         block_count(problem.out_width(), kTileFeatures) * (problem.rows / (kCluster * kMostColumns) + 2) <=
             kMostSteps / block_count(problem.in_width(), kStep);
}

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  const Cut cut(problem);
  return cut.partial_bytes + cut.arrival_bytes;
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) {
    problem.forward() ? launch<T, true>(problem, call) : launch<T, false>(problem, call);
  });
}

}  // namespace qshard::optimized::middle_rows
