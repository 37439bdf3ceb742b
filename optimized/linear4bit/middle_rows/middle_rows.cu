#include <type_traits>

#include "optimized/device/dtype_dispatch.h"
#include "optimized/linear4bit/cluster/cluster_launch.cuh"
#include "optimized/linear4bit/middle_rows/middle_rows.h"
#include "optimized/linear4bit/middle_rows/middle_rows_dequantizer.cuh"
#include "optimized/linear4bit/middle_rows/middle_rows_multiplier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/uniform.cuh"

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
    init_barriers(shared);
  }
  cluster_sync();
  if (warp_index() < kMultiplierWarps) {
    grid_dependency_synchronize();
    Multiplier<T, kForward, kColumns>(task, shared).run();
  } else if (task.scales.nested()) {
    Dequantizer<T, kForward, kColumns, true>(task, codes, input, shared).run();
  } else {
    Dequantizer<T, kForward, kColumns, false>(task, codes, input, shared).run();
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

template <typename T, bool kForward>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const CUtensorMap codes = code_map(problem.shape, call.weight.codes, kStep / 2, 32);
  const auto launch_columns = [&]<int kColumns>(const Task<T>& task, std::integral_constant<int, kColumns>) {
    cluster::launch_clusters(middle_rows_kernel<T, kForward, kColumns>, task, codes,
                             cluster::input_map(problem, call, kColumns), SharedMemory<kColumns>::kThreads,
                             SharedMemory<kColumns>::kBytes, call.stream);
  };
  cluster::cut_and_launch<T, kTileShape>(problem, call, launch_columns);
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  return cluster::supports(problem, kTileShape);
}

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  return cluster::ClusterCut(problem, kTileShape).workspace_bytes;
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) {
    problem.forward() ? launch<T, true>(problem, call) : launch<T, false>(problem, call);
  });
}

}  // namespace qshard::optimized::middle_rows
