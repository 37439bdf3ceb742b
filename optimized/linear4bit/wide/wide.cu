#include <type_traits>

#include "optimized/device/dtype_dispatch.h"
#include "optimized/linear4bit/cluster/cluster_launch.cuh"
#include "optimized/linear4bit/wide/wide.h"
#include "optimized/linear4bit/wide/wide_dequantizer.cuh"
#include "optimized/linear4bit/wide/wide_loader.cuh"
#include "optimized/linear4bit/wide/wide_multiplier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/uniform.cuh"

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
  static constexpr int kDequantizer = kTeams == 2 && kColumns >= 192 ? 64 : 80;  // what the multipliers leave
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
  cluster_sync();
  const int warpgroup = warpgroup_index();
  if (warpgroup < cluster::kWarpgroups) {
    setmaxnreg_inc<Registers<kColumns>::kMultiplier>();
    grid_dependency_synchronize();
    Multiplier<T, kForward, kColumns>(task, shared).run();
  } else if (warpgroup < cluster::kWarpgroups + SharedMemory<kColumns>::kTeams) {
    setmaxnreg_dec<Registers<kColumns>::kDequantizer>();
    const int team = warpgroup - cluster::kWarpgroups;
    if (task.scales.nested()) {
      Dequantizer<T, kForward, kColumns, true>(task, shared, team).run();
    } else {
      Dequantizer<T, kForward, kColumns, false>(task, shared, team).run();
    }
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

template <typename T, bool kForward>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  static_assert(kLines == kStep, "a box of codes is the same for both directions");
  const CUtensorMap codes = code_map(problem.shape, call.weight.codes, kStep / 2, kLines);
  const auto launch_columns = [&]<int kColumns>(const Task<T>& task, std::integral_constant<int, kColumns>) {
    cluster::launch_clusters(wide_kernel<T, kForward, kColumns>, task, codes,
                             cluster::input_map(problem, call, kColumns / kCluster), kThreads<kColumns>,
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

}  // namespace qshard::optimized::wide
