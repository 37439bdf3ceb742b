#include <algorithm>
#include <bit>
#include <limits>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/dropout_masks.h"
#include "optimized/linear4bit/many_rows/clear_counts.h"
#include "optimized/linear4bit/many_rows/many_rows.h"
#include "optimized/linear4bit/many_rows/many_rows_dequantizer.cuh"
#include "optimized/linear4bit/many_rows/many_rows_loader.cuh"
#include "optimized/linear4bit/many_rows/many_rows_multiplier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/uniform.cuh"

namespace qshard::optimized::many_rows {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, bool kForward, bool kAdapter>
__device__ __forceinline__ void multiply(const Task& task, const CUtensorMap& weight, const CUtensorMap& input,
                                         const CUtensorMap& output, const AdapterMaps& adapter,
                                         const unsigned char* smem) {
  trigger_programmatic_launch_completion();
  SharedMemory shared{static_cast<std::uint32_t>(__cvta_generic_to_shared(smem))};
  asm("" : "+r"(shared.first));  // kept, not computed again
  const Loader<kForward, kAdapter> loader(task, weight, input, adapter, shared);
  if (threadIdx.x == kMultipliers) loader.start();
  grid_dependency_synchronize();
  cluster_sync();
  const int warp = warp_index();
  if (warp < kMultiplierWarps) {
    Multiplier<T, kForward, kAdapter>(task, output, shared).run();
  } else if (warp > kMultiplierWarps) {
    Dequantizer<T, kForward>(task, shared).run();
  } else {
    if (threadIdx.x == kMultipliers) loader.run();
    __syncwarp();
  }
  cluster_sync();  // the other thread block arrives at barriers of this one until it is done
}

#endif

template <typename T, bool kForward, bool kAdapter>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(kThreads, 1)
    many_rows_kernel(const __grid_constant__ Task task, const __grid_constant__ CUtensorMap weight,
                     const __grid_constant__ CUtensorMap input, const __grid_constant__ CUtensorMap output,
                     const __grid_constant__ AdapterMaps adapter) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  multiply<T, kForward, kAdapter>(task, weight, input, output, adapter, smem);
#else
  __trap();
#endif
}

/// Rows of two-byte elements, by boxes of 64 of them.
CUtensorMap matrix_map(const void* base, std::int64_t width, std::int64_t rows, std::int64_t stride, int box_rows) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(base), {width * 2, rows}, {stride * 2}, {kStep * 2, box_rows},
                         CU_TENSOR_MAP_SWIZZLE_128B);
}

AdapterMaps adapter_maps(const Linear4bitProblem& problem, const Linear4bitAdapter& adapter) {
  const CUtensorMap factor =
      matrix_map(adapter.factor, adapter.rank, problem.rows, adapter.factor_stride, kTileRows / kCluster);
  if (problem.forward()) {
    return {matrix_map(adapter.matrix, adapter.rank, problem.out_width(), adapter.rank, kTileColumns), factor};
  }
  return {matrix_map(adapter.matrix, problem.out_width(), adapter.rank, problem.out_width(), kStep), factor};
}

int cluster_count(const Linear4bitDevice& device) {
  return device.multiprocessors / kCluster;
}

TileDeal tile_deal(const Linear4bitProblem& problem) {
  return {static_cast<int>(block_count(problem.rows, kTileRows) * block_count(problem.out_width(), kClusterColumns)),
          static_cast<int>(block_count(problem.in_width(), kStep)), cluster_count(problem.device)};
}

/// Where things are in the workspace: the dequantized weight, partial sums of shared tiles, counts. The pieces taken
/// have a count of their own; the boxes' counts begin 128 bytes behind it, and arrivals are behind those.
struct Workspace {
  static constexpr std::int64_t kBoxCounts = 32;

  TileDeal deal;
  std::size_t partials;
  std::size_t counts;
  std::int64_t arrivals;  // behind counts
  std::int64_t count;

  explicit Workspace(const Linear4bitProblem& problem) : deal(tile_deal(problem)) {
    const Linear4bitShape& shape = problem.shape;
    const std::int64_t slots = std::int64_t{deal.shared} * deal.parts;
    partials = aligned_bytes(static_cast<std::size_t>(shape.out_features * shape.in_features) * sizeof(std::uint16_t));
    counts = partials + static_cast<std::size_t>(slots) * kTileRows * kClusterColumns * sizeof(float);
    arrivals = kBoxCounts + block_count(shape.out_features, kBox) * block_count(shape.in_features, kBox);
    count = arrivals + slots * kCluster * kWarpgroups;
  }

  [[nodiscard]] std::size_t bytes() const { return counts + static_cast<std::size_t>(count) * sizeof(unsigned); }
};

/// Clusters that have a place at the same time: all tiles are dealt to them beforehand, and one that had to wait for
/// another's end would double the product's time.
int resident_clusters(const Linear4bitDevice& device) {
  return std::max(1, (device.multiprocessors - device.other.busy) / kCluster);
}

template <typename T, bool kForward, bool kAdapter>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitShape& shape = problem.shape;
  const Linear4bitAdapter& adapter = call.addends.adapter;
  void* const dequantized = call.workspace;
  const Workspace parts(problem);
  auto* const partials = reinterpret_cast<float*>(static_cast<std::byte*>(call.workspace) + parts.partials);
  auto* const counts = reinterpret_cast<unsigned*>(static_cast<std::byte*>(call.workspace) + parts.counts);
  const Task task{call.weight.codes,
                  BlockScales(call.weight),
                  CodebookValues(shape.quant_type),
                  std::countr_zero(static_cast<unsigned>(shape.blocksize)),
                  static_cast<int>(shape.out_features),
                  static_cast<int>(shape.in_features),
                  dequantized,
                  counts,
                  counts + Workspace::kBoxCounts,
                  partials,
                  reinterpret_cast<int*>(counts + parts.arrivals),
                  parts.deal,
                  static_cast<int>(block_count(problem.in_width(), kStep)),
                  static_cast<int>(block_count(problem.rows, kTileRows)),
                  static_cast<int>(block_count(problem.out_width(), kClusterColumns)),
                  static_cast<int>(problem.rows),
                  static_cast<int>(block_count(adapter.rank, kStep)),
                  static_cast<float>(adapter.scale),
                  adapter.mask,
                  dropout_mask_stride(shape.in_features),
                  call.addends.add_to_out};
  const CUtensorMap weight = matrix_map(dequantized, shape.in_features, shape.out_features, shape.in_features,
                                        kForward ? kTileColumns : kStep);
  const CUtensorMap input = matrix_map(call.in, problem.in_width(), problem.rows, call.in_stride, kTileRows / kCluster);
  const CUtensorMap output =
      element_tensor_map(shape.dtype, call.out, {problem.out_width(), problem.rows}, {call.out_stride},
                         {kGroupColumns, SharedMemory::kOutputRows}, CU_TENSOR_MAP_SWIZZLE_128B);
  const AdapterMaps maps = kAdapter ? adapter_maps(problem, adapter) : AdapterMaps{};
  const auto kernel = many_rows_kernel<T, kForward, kAdapter>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SharedMemory::kBytes));
  clear_counts(counts, parts.count, call.stream);
  launch_early(kernel, dim3(static_cast<unsigned>(kCluster * resident_clusters(problem.device))), kThreads,
               SharedMemory::kBytes, call.stream, task, weight, input, output, maps);
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
  const Linear4bitShape& shape = problem.shape;
  return problem.device.has_warpgroups && shape.dtype != DType::f32 && shape.blocksize >= kStep &&
         problem.whole_blocks() && std::max({problem.rows, shape.out_features, shape.in_features}) <= kMost &&
         block_count(shape.out_features, kBox) * block_count(shape.in_features, kBox) <= kMost / kPieces &&
         block_count(problem.rows, kTileRows) * block_count(problem.out_width(), kClusterColumns) <=
             kMost / block_count(problem.in_width(), kStep);
}

// In units of the time that dequantizing the whole weight first takes, which is about that of a product over 256 rows;
// fitted to the linear layers of Llama models on an H200.
bool pays(const Linear4bitProblem& problem) {
  constexpr double kEqualRows = 256;
  constexpr double kSlowerDequantizing = 1.9;  // where dequantizing is what this kernel's time goes to
  constexpr double kSlowerProduct = 1.03;      // of cuBLASLt, against this kernel's
  const std::int64_t column_tiles = block_count(problem.out_width(), kClusterColumns);
  const int clusters = cluster_count(problem.device);
  const double both =
      std::max(kSlowerDequantizing, tile_deal(problem).waves() * clusters / static_cast<double>(column_tiles));
  return both < 1 + kSlowerProduct * static_cast<double>(problem.rows) / kEqualRows;
}

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  return Workspace(problem).bytes();
}

bool adds(const Linear4bitProblem& problem, const Linear4bitAddends& addends) {
  const auto is_aligned = [](const void* pointer, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
  };
  const Linear4bitAdapter& adapter = addends.adapter;
  return adapter.rank == 0 || (is_aligned(adapter.factor, adapter.factor_stride) &&
                               is_aligned(adapter.matrix, problem.forward() ? adapter.rank : problem.out_width()));
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) {
    const auto launch_adapted = call.addends.adapter.rank > 0
                                    ? (problem.forward() ? launch<T, true, true> : launch<T, false, true>)
                                    : (problem.forward() ? launch<T, true, false> : launch<T, false, false>);
    launch_adapted(problem, call);
  });
}

}  // namespace qshard::optimized::many_rows
