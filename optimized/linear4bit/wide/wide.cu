#include <iterator>
#include <type_traits>
#include <utility>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/linear4bit/clear_counts.h"
#include "optimized/linear4bit/warpgroup/nested_map.cuh"
#include "optimized/linear4bit/wide/wide.h"
#include "optimized/linear4bit/wide/wide_dequantizer.cuh"
#include "optimized/linear4bit/wide/wide_loader.cuh"
#include "optimized/linear4bit/wide/wide_multiplier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized::wide {

namespace {

template <int kColumns>
constexpr int kWarpgroups = cluster::kWarpgroups + team_count(kColumns) + 1;  // and one that loads

template <int kColumns>
constexpr int kThreads = 128 * kWarpgroups<kColumns>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// Of a thread. The kernel starts with equally many of all, and loaders leave theirs to the multipliers' sums.
template <int kColumns>
struct Registers {
  static constexpr int kTeams = team_count(kColumns);
  static constexpr int kAtFirst = 512 / kWarpgroups<kColumns> / 8 * 8;
  static constexpr int kLoader = 24;
  static constexpr int kDequantizer = kColumns <= 224 ? 80 : 64;
  static constexpr int kMultiplier =
      (kAtFirst * kWarpgroups<kColumns> - kLoader - kTeams * kDequantizer) / cluster::kWarpgroups / 8 * 8;
};

template <typename T, bool kForward, int kColumns>
__device__ __forceinline__ void multiply(const Task<T>& task, const CUtensorMap& codes, const CUtensorMap& input,
                                         unsigned char* smem) {
  trigger_programmatic_launch_completion();
  SharedMemory<kColumns> shared{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  asm("" : "+r"(shared.first));  // kept, not computed again
  const Loader<T, kForward, kColumns> loader(task, codes, input, shared);
  constexpr int kFirstLoader = kThreads<kColumns> - 128;
  if (threadIdx.x == kFirstLoader) loader.start();
  grid_dependency_synchronize();
  warpgroup::fill_map(task.scales, shared.map());
  cluster_sync();
  // A shuffle tells the compiler that all of a warp takes one way.
  const int warpgroup = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup < cluster::kWarpgroups) {
    setmaxnreg_inc<Registers<kColumns>::kMultiplier>();
    Multiplier<T, kForward, kColumns>(task, shared).run();
  } else if (warpgroup < cluster::kWarpgroups + SharedMemory<kColumns>::kTeams) {
    setmaxnreg_dec<Registers<kColumns>::kDequantizer>();
    Dequantizer<T, kForward, kColumns>(task, shared, warpgroup - cluster::kWarpgroups).run();
  } else {
    setmaxnreg_dec<Registers<kColumns>::kLoader>();
    if (threadIdx.x == kFirstLoader) loader.load_codes();
    if (threadIdx.x == kFirstLoader + 32) loader.load_input();
    __syncwarp();
  }
  cluster_sync();  // the other thread block copies to this one and arrives at its barriers until it is done
}

#endif

template <typename T, bool kForward, int kColumns>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(kThreads<kColumns>, 1)
    wide_kernel(const __grid_constant__ Task<T> task, const __grid_constant__ CUtensorMap codes,
                const __grid_constant__ CUtensorMap input) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  multiply<T, kForward, kColumns>(task, codes, input, smem);
#else
  __trap();
#endif
}

template <typename T, bool kForward, int kColumns>
void launch_kernel(const Task<T>& task, const Linear4bitProblem& problem, const Linear4bitCall& call) {
  constexpr std::uint32_t kShared = SharedMemory<kColumns>::kBytes;
  static_assert(kLines == kStep, "a box of codes is the same for both directions");
  const CUtensorMap codes = byte_tensor_map(call.weight.codes, {task.in_features / 2, task.out_features},
                                            {task.in_features / 2}, {kStep / 2, kLines}, CU_TENSOR_MAP_SWIZZLE_64B);
  const CUtensorMap input =
      byte_tensor_map(static_cast<const std::uint8_t*>(call.in), {problem.in_width() * 2, problem.rows},
                      {call.in_stride * 2}, {kChunk * 2, kColumns / kCluster}, CU_TENSOR_MAP_SWIZZLE_128B);
  const auto kernel = wide_kernel<T, kForward, kColumns>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  launch_early(kernel, dim3(static_cast<unsigned>(task.order.clusters * kCluster)), kThreads<kColumns>, kShared,
               call.stream, task, codes, input);
}

template <typename T, bool kForward>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const cluster::ClusterCut cut(problem, kTileShape);
  const Task<T> task(problem, call, cut);
  clear_counts(task.arrivals, cut.arrivals, call.stream);
  const auto launch_if = [&]<int kColumns>(std::integral_constant<int, kColumns>) {
    if (cut.columns.columns == kColumns) launch_kernel<T, kForward, kColumns>(task, problem, call);
  };
  [&]<std::size_t... kAt>(std::index_sequence<kAt...>) {
    (launch_if(std::integral_constant<int, kColumnCounts[kAt]>{}), ...);
  }
  (std::make_index_sequence<std::size(kColumnCounts)>{});
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  return cluster::supports(problem, kTileShape);
}

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  return cluster::ClusterCut(problem, kTileShape).workspace_bytes();
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) {
    problem.forward() ? launch<T, true>(problem, call) : launch<T, false>(problem, call);
  });
}

}  // namespace qshard::optimized::wide
