#include <algorithm>
#include <bit>
#include <limits>
#include <span>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/warpgroup/nested_map.cuh"
#include "optimized/linear4bit/warpgroup/packed_input.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup.h"
#include "optimized/linear4bit/warpgroup/warpgroup_loader.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_multiplier.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized::warpgroup {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kMultiplierRegisters = 160;  // of a thread
constexpr int kLoaderRegisters = 32;
// Shared memory is ready. Two branches wait for each other, which __syncthreads() is not made for.
constexpr int kReady = 1;

template <typename T, int kColumnTiles>
__device__ __forceinline__ void multiply(const Task<T>& task, const CUtensorMap& codes, unsigned char* smem) {
  trigger_programmatic_launch_completion();
  const SharedMemory<kColumnTiles> shared{smem};
  const int begin = task.split.begin(static_cast<int>(blockIdx.x));
  const int end = task.split.begin(static_cast<int>(blockIdx.x) + 1);
  // A shuffle tells the compiler that all of a warp takes one way.
  if (__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0) < kWarpgroups) {
    Multiplier<T, kColumnTiles> multiplier(task, shared, begin, end);  // asks for its first scales before all else
    PairTable(shared.table).fill<T>(task.codebook);
    fill_map(task.scales, shared.map());
    named_barrier_sync<kReady, kThreads>();
    setmaxnreg_inc<kMultiplierRegisters>();
    multiplier.run();
  } else {
    const Loader<T, kColumnTiles> loader(task, codes, shared, begin, end);
    if (threadIdx.x == kMultipliers) loader.start();
    named_barrier_sync<kReady, kThreads>();
    setmaxnreg_dec<kLoaderRegisters>();
    if (threadIdx.x == kMultipliers) loader.run();
  }
}

#endif

/// y = x W^T for 5 to 64 rows.
template <typename T, int kColumnTiles>
__global__ void __launch_bounds__(kThreads, 1)
    warpgroup_kernel(const __grid_constant__ Task<T> task, const __grid_constant__ CUtensorMap codes) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  multiply<T, kColumnTiles>(task, codes, smem);
#else
  __trap();
#endif
}

/// How the work is cut, and where things are in the workspace. A thread block has some steps at least: with fewer the
/// sums of shared tiles take longer than what is saved.
struct Cut {
  WorkSplit split;
  int column_tiles;
  std::size_t packed_bytes;
  std::size_t partial_bytes;
  std::size_t arrival_bytes;

  explicit Cut(const Linear4bitProblem& problem)
      : split(split_of(problem)),
        column_tiles(problem.rows <= 8    ? 1
                     : problem.rows <= 16 ? 2
                     : problem.rows <= 32 ? 4
                                          : 8) {
    packed_bytes = static_cast<std::size_t>(split.steps) * kStep * padded_rows() * sizeof(std::uint16_t);
    partial_bytes = static_cast<std::size_t>(split.slots()) * padded_rows() * kTileRows * sizeof(float);
    arrival_bytes = static_cast<std::size_t>(split.tiles) * kMultiplierWarps * sizeof(int);
  }

  [[nodiscard]] int padded_rows() const { return 8 * column_tiles; }

 private:
  static WorkSplit split_of(const Linear4bitProblem& problem) {
    constexpr int kLeastSteps = 8;
    const auto tiles = static_cast<int>(block_count(problem.shape.out_features, kTileRows));
    const auto steps = static_cast<int>(block_count(problem.shape.in_features, kStep));
    return {tiles, steps, std::clamp(tiles * steps / kLeastSteps, 1, problem.device.multiprocessors)};
  }
};

template <typename T, int kColumnTiles>
void launch_kernel(const Task<T>& task, const CUtensorMap& codes, cudaStream_t stream) {
  constexpr std::uint32_t kShared = SharedMemory<kColumnTiles>::kBytes;
  const auto kernel = warpgroup_kernel<T, kColumnTiles>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  launch_early(kernel, dim3(static_cast<unsigned>(task.split.workers)), kThreads, kShared, stream, task, codes);
}

template <typename T>
void multiply_packed(const Linear4bitProblem& problem, const Linear4bitCall& call, const Cut& cut,
                     const std::byte* packed_x, std::byte* partials, int* arrivals) {
  const Linear4bitShape& shape = problem.shape;
  const Task<T> task{BlockScales(call.weight),
                     CodebookValues(shape.quant_type),
                     std::countr_zero(static_cast<unsigned>(shape.blocksize)),
                     static_cast<int>(shape.in_features),
                     static_cast<int>(shape.out_features),
                     reinterpret_cast<const T*>(packed_x),
                     static_cast<int>(problem.rows),
                     static_cast<T*>(call.out),
                     call.out_stride,
                     reinterpret_cast<float*>(partials),
                     arrivals,
                     cut.split,
                     shape.nested && shape.blocksize == kChunk && shape.in_features % (4 * kChunk) == 0 &&
                         reinterpret_cast<std::uintptr_t>(call.weight.absmax_codes) % 4 == 0};
  const CUtensorMap codes = byte_tensor_map(call.weight.codes, {shape.in_features / 2, shape.out_features},
                                            {shape.in_features / 2}, {kStep / 2, kTileRows}, CU_TENSOR_MAP_SWIZZLE_64B);
  switch (cut.column_tiles) {
    case 1:
      launch_kernel<T, 1>(task, codes, call.stream);
      break;
    case 2:
      launch_kernel<T, 2>(task, codes, call.stream);
      break;
    case 4:
      launch_kernel<T, 4>(task, codes, call.stream);
      break;
    default:
      launch_kernel<T, 8>(task, codes, call.stream);
  }
}

/// Products of one input, which is laid out once. Their workspace: the input, the arrivals of all, the partial sums.
template <typename T>
void launch(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls) {
  const Linear4bitCall& first = calls[0];
  std::vector<Cut> cuts;
  int arrival_count = 0;
  for (const Linear4bitProblem* problem : problems) {
    cuts.emplace_back(*problem);
    arrival_count += static_cast<int>(cuts.back().arrival_bytes / sizeof(int));
  }
  auto* const packed_x = static_cast<std::byte*>(first.workspace);
  auto* arrivals = reinterpret_cast<int*>(packed_x + cuts[0].packed_bytes);
  auto* partials = reinterpret_cast<std::byte*>(arrivals + arrival_count);
  const int padded_rows = cuts[0].padded_rows();
  const std::int64_t pack_count = std::int64_t{cuts[0].split.steps} * kChunks * kInstructions * padded_rows;
  const auto pack_blocks =
      static_cast<unsigned>(block_count(std::max<std::int64_t>(pack_count, arrival_count), kPackThreads));
  const bool aligned = reinterpret_cast<std::uintptr_t>(first.in) % sizeof(uint2) == 0 && first.in_stride % 4 == 0;
  const auto pack = aligned ? pack_kernel<true, T> : pack_kernel<false, T>;
  launch_early(pack, dim3(pack_blocks), kPackThreads, 0, first.stream, static_cast<const T*>(first.in), first.in_stride,
               static_cast<int>(problems[0]->rows), static_cast<int>(problems[0]->shape.in_features), padded_rows,
               pack_count, reinterpret_cast<uint4*>(packed_x), arrivals, arrival_count);
  for (std::size_t i = 0; i < problems.size(); ++i) {
    multiply_packed<T>(*problems[i], calls[i], cuts[i], packed_x, partials, arrivals);
    arrivals += cuts[i].arrival_bytes / sizeof(int);
    partials += cuts[i].partial_bytes;
  }
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  const Linear4bitShape& shape = problem.shape;
  constexpr std::int64_t kMostElements = std::int64_t{1} << 44;  // so that all steps of all tiles are an int
  return problem.can_fuse() && problem.device.has_warpgroups && shape.blocksize >= kChunk &&
         shape.out_features <= std::numeric_limits<std::int32_t>::max() / 2 &&
         shape.out_features * shape.in_features <= kMostElements;
}

// Measured on an H200: of 1024 x 8192 and less `fused` takes 0.5 to 1.1 of its time at 8 to 64 rows, of 3584 x 3584 1.0
// to 1.35. There each thread block has few steps, and a launch packs x beforehand.
bool pays(const Linear4bitProblem& problem) {
  constexpr std::int64_t kLeastElements = std::int64_t{10} << 20;
  return problem.shape.out_features * problem.shape.in_features >= kLeastElements;
}

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  const Cut cut(problem);
  return cut.packed_bytes + cut.partial_bytes + cut.arrival_bytes;
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitProblem* const problems[] = {&problem};
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(problems, {&call, 1}); });
}

bool run_together(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls,
                  std::size_t available) {
  std::size_t needed = Cut(*problems[0]).packed_bytes;
  for (const Linear4bitProblem* problem : problems) {
    const Cut cut(*problem);
    needed += cut.arrival_bytes + cut.partial_bytes;
  }
  if (needed > available) return false;
  dispatch_16bit(problems[0]->shape.dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(problems, calls); });
  return true;
}

}  // namespace qshard::optimized::warpgroup
