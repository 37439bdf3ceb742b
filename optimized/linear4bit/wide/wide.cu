#include <algorithm>
#include <bit>
#include <limits>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/warpgroup/nested_map.cuh"
#include "optimized/linear4bit/wide/wide.h"
#include "optimized/linear4bit/wide/wide_loader.cuh"
#include "optimized/linear4bit/wide/wide_multiplier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized::wide {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kMultiplierRegisters = 240;  // of a thread
constexpr int kLoaderRegisters = 24;

template <typename T, bool kForward, int kColumns>
__device__ __forceinline__ void multiply(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& input,
                                         unsigned char* smem) {
  trigger_programmatic_launch_completion();
  const SharedMemory<kColumns> shared{smem};
  const int cluster = static_cast<int>(blockIdx.x) / kCluster;
  const int begin = task.split.begin(cluster);
  const int end = task.split.begin(cluster + 1);
  // A shuffle tells the compiler that all of a warp takes one way.
  if (__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0) < kWarpgroups) {
    Multiplier<T, kForward, kColumns> multiplier(task, shared, begin, end);  // asks for its first scales first
    FloatPairTable(shared.table).fill(task.codebook, kMultipliers);
    warpgroup::fill_map(task.scales, shared.map());
    cluster_sync();
    setmaxnreg_inc<kMultiplierRegisters>();
    multiplier.run();
  } else {
    const Loader<T, kForward, kColumns> loader(task, codes, input, shared, begin, end);
    if (threadIdx.x == kMultipliers) loader.start();
    cluster_sync();
    setmaxnreg_dec<kLoaderRegisters>();
    if (threadIdx.x == kMultipliers) loader.load_codes();
    if (threadIdx.x == kMultipliers + 32) loader.load_input();
    __syncwarp();
  }
  cluster_sync();  // the other thread block copies to this one and arrives at its barriers until it is done
}

#endif

template <typename T, bool kForward, int kColumns>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(kThreads, 1)
    wide_kernel(const __grid_constant__ Task<T> task, const __grid_constant__ CUtensorMap codes,
                const __grid_constant__ CUtensorMap input) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  multiply<T, kForward, kColumns>(task, codes, input, smem);
#else
  __trap();
#endif
}

/// Of a cluster: with fewer the sums of shared tiles take longer than what is saved.
constexpr int kLeastSteps = 8;

/// How the work is cut, and where things are in the workspace.
struct Cut {
  ColumnCut columns;
  WorkSplit split;
  std::size_t partial_bytes;
  std::size_t arrival_bytes;

  explicit Cut(const Linear4bitProblem& problem) : columns(problem.rows), split(split_of(problem, columns.tiles)) {
    partial_bytes = static_cast<std::size_t>(split.slots()) * columns.columns * kClusterFeatures * sizeof(float);
    arrival_bytes = static_cast<std::size_t>(split.tiles) * kCluster * kMultiplierWarps * sizeof(int);
  }

 private:
  static WorkSplit split_of(const Linear4bitProblem& problem, int column_tiles) {
    const int tiles = static_cast<int>(block_count(problem.out_width(), kClusterFeatures)) * column_tiles;
    const int steps = static_cast<int>(block_count(problem.in_width(), kStep));
    return {tiles, steps,
            std::max(1, std::min(problem.device.multiprocessors / kCluster, tiles * steps / kLeastSteps))};
  }
};

template <typename T, bool kForward, int kColumns>
void launch_kernel(const Task<T>& task, const Linear4bitProblem& problem, const Linear4bitCall& call) {
  constexpr std::uint32_t kShared = SharedMemory<kColumns>::kBytes;
  constexpr int kCodeRows = kForward ? kTileFeatures : kStep;
  constexpr int kCodeColumns = kForward ? kStep : kTileFeatures;
  const CUtensorMap codes =
      byte_tensor_map(call.weight.codes, {task.in_features / 2, task.out_features}, {task.in_features / 2},
                      {kCodeColumns / 2, kCodeRows}, CU_TENSOR_MAP_SWIZZLE_64B);
  const CUtensorMap input =
      byte_tensor_map(static_cast<const std::uint8_t*>(call.in), {problem.in_width() * 2, problem.rows},
                      {call.in_stride * 2}, {kChunk * 2, kColumns / kCluster}, CU_TENSOR_MAP_SWIZZLE_128B);
  const auto kernel = wide_kernel<T, kForward, kColumns>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  kernel<<<static_cast<unsigned>(task.split.workers * kCluster), kThreads, kShared, call.stream>>>(task, codes, input);
  QSHARD_CUDA_CHECK(cudaGetLastError());
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
                     cut.split,
                     cut.columns.tiles,
                     shape.nested && shape.blocksize == kChunk && shape.in_features % (4 * kChunk) == 0 &&
                         reinterpret_cast<std::uintptr_t>(call.weight.absmax_codes) % 4 == 0,
                     reinterpret_cast<std::uintptr_t>(call.out) % 4 == 0 && call.out_stride % 2 == 0};
  QSHARD_CUDA_CHECK(cudaMemsetAsync(arrivals, 0, cut.arrival_bytes, call.stream));
  switch (cut.columns.columns) {
    case 96:
      return launch_kernel<T, kForward, 96>(task, problem, call);
    case 128:
      return launch_kernel<T, kForward, 128>(task, problem, call);
    case 160:
      return launch_kernel<T, kForward, 160>(task, problem, call);
    case 192:
      return launch_kernel<T, kForward, 192>(task, problem, call);
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
  return problem.device.has_warpgroups && shape.dtype != DType::f32 && shape.blocksize >= kChunk &&
         problem.whole_blocks() && std::max({problem.rows, shape.out_features, shape.in_features}) <= kMost &&
         block_count(problem.out_width(), kClusterFeatures) * (problem.rows / 96 + 2) <=
             kMostSteps / block_count(problem.in_width(), kStep);
}

// Measured on an H200 beside the rows of the table after it. Forward, of weights from 48 Mi elements on: 0.43 to 0.60
// of their time at 65 to 128 rows, 0.54 to 0.82 at 192 to 256, 0.63 to 0.97 at 257 to 512; from 640 rows on many_rows
// and dequantizing first are often faster. Near 512 rows it must gain more than an adapter's update takes, which
// many_rows does along with the product. The gradient, whose scales differ within an instruction: 0.62 to 0.96 at 65 to
// 192 rows. Smaller weights have fewer steps for its fixed costs, which grow with the columns of a tile.
bool pays(const Linear4bitProblem& problem) {
  constexpr std::int64_t kMi = std::int64_t{1} << 20;
  const std::int64_t elements = problem.shape.out_features * problem.shape.in_features;
  const std::int64_t most_rows = elements >= 32 * kMi ? 256 : elements >= 16 * kMi ? 192 : 0;
  return problem.forward() && problem.rows > kMostFusedRows && problem.rows <= most_rows;
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

}  // namespace qshard::optimized::wide
