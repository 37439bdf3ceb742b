#include <algorithm>
#include <bit>
#include <limits>
#include <span>
#include <vector>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/code_map.h"
#include "optimized/linear4bit/own_product.cuh"
#include "optimized/linear4bit/warpgroup/nested_map.cuh"
#include "optimized/linear4bit/warpgroup/packed_input.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup.h"
#include "optimized/linear4bit/warpgroup/warpgroup_loader.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_multiplier.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/uniform.cuh"

namespace qshard::optimized::warpgroup {

namespace {

constexpr std::size_t kMostProducts = 3;  // of a launch

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kMultiplierRegisters = 160;  // of a thread
constexpr int kLoaderRegisters = 32;
// Shared memory is ready. Two branches wait for each other, which __syncthreads() is not made for.
constexpr int kReady = 1;

template <typename T, int kColumnTiles>
__device__ __forceinline__ void multiply(const Task<T>& task, const CUtensorMap& codes, unsigned char* smem) {
  trigger_programmatic_launch_completion();
  const SharedMemory<kColumnTiles> shared{smem};
  const int begin = task.split.begin(task.worker());
  const int end = task.split.begin(task.worker() + 1);
  if (warpgroup_index() < kWarpgroups) {
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

/// The products of one launch: each has thread blocks of its own. A kernel for a single product would not be faster:
/// the compiler finds no better code for it.
template <typename T>
struct Products {
  Task<T> tasks[kMostProducts];
  CUtensorMap codes[kMostProducts];
};

/// y = x W^T for 5 to 64 rows.
template <typename T, int kColumnTiles>
__global__ void __launch_bounds__(kThreads, 1) warpgroup_kernel(const __grid_constant__ Products<T> products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char smem[];
  const int product = own_product(products.tasks);
  multiply<T, kColumnTiles>(products.tasks[product], products.codes[product], smem);
#else
  __trap();
#endif
}

/// How a product is cut for so many thread blocks, and how much memory that takes. A thread block has some steps at
/// least: with fewer the sums of shared tiles take longer than what is saved.
struct Cut {
  WorkSplit split;
  int column_tiles;
  std::size_t packed_bytes;
  std::size_t partial_bytes;
  int arrivals;

  Cut(const Linear4bitProblem& problem, int most_blocks)
      : split(split_of(problem, most_blocks)),
        column_tiles(problem.rows <= 8    ? 1
                     : problem.rows <= 16 ? 2
                     : problem.rows <= 32 ? 4
                                          : 8),
        packed_bytes(static_cast<std::size_t>(split.steps) * kStep * padded_rows() * sizeof(std::uint16_t)),
        partial_bytes(static_cast<std::size_t>(split.slots()) * padded_rows() * kTileRows * sizeof(float)),
        arrivals(split.tiles * kMultiplierWarps) {}

  [[nodiscard]] int padded_rows() const { return 8 * column_tiles; }

 private:
  static WorkSplit split_of(const Linear4bitProblem& problem, int most_blocks) {
    constexpr int kLeastSteps = 8;
    const auto tiles = static_cast<int>(block_count(problem.shape.out_features, kTileRows));
    const auto steps = static_cast<int>(block_count(problem.shape.in_features, kStep));
    return {tiles, steps, std::clamp(tiles * steps / kLeastSteps, 1, most_blocks)};
  }
};

/// The cuts of products of one input, which share the GPU by their tiles.
std::vector<Cut> cuts_of(std::span<const Linear4bitProblem* const> problems) {
  std::vector<std::int64_t> tiles;
  for (const Linear4bitProblem* problem : problems) {
    tiles.push_back(block_count(problem->shape.out_features, kTileRows));
  }
  const std::vector<int> shares = shares_of_blocks(problems[0]->device.multiprocessors, tiles);
  std::vector<Cut> cuts;
  for (std::size_t i = 0; i < problems.size(); ++i) cuts.emplace_back(*problems[i], shares[i]);
  return cuts;
}

/// The input, then the arrivals of all, then their partial sums.
std::size_t bytes_of(std::span<const Cut> cuts) {
  std::size_t bytes = cuts[0].packed_bytes;
  for (const Cut& cut : cuts) bytes += cut.arrivals * sizeof(int) + cut.partial_bytes;
  return bytes;
}

/// Lays the input out and clears the arrivals.
template <typename T>
void pack(const Linear4bitProblem& problem, const Linear4bitCall& call, const Cut& cut, std::byte* packed,
          int* arrivals, int arrival_count) {
  const std::int64_t count = std::int64_t{cut.split.steps} * kChunks * kInstructions * cut.padded_rows();
  const auto blocks = static_cast<unsigned>(block_count(std::max<std::int64_t>(count, arrival_count), kPackThreads));
  const bool aligned = reinterpret_cast<std::uintptr_t>(call.in) % sizeof(uint2) == 0 && call.in_stride % 4 == 0;
  launch_early(aligned ? pack_kernel<true, T> : pack_kernel<false, T>, dim3(blocks), kPackThreads, 0, call.stream,
               static_cast<const T*>(call.in), call.in_stride, static_cast<int>(problem.rows),
               static_cast<int>(problem.shape.in_features), cut.padded_rows(), count, reinterpret_cast<uint4*>(packed),
               arrivals, arrival_count);
}

/// Absmax codes of a row that one aligned load reads.
int codes_ahead(const Linear4bitShape& shape, const DeviceWeight4bit& weight) {
  if (!shape.nested || shape.blocksize != kChunk) return 0;
  for (const int codes : {4, 2}) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(weight.absmax_codes) % codes == 0;
    if (aligned && shape.in_features % (codes * kChunk) == 0) return codes;
  }
  return 0;
}

/// A product whose thread blocks begin with `first_block`.
template <typename T>
Task<T> task_of(const Linear4bitProblem& problem, const Linear4bitCall& call, const Cut& cut, int first_block,
                const std::byte* packed_x, std::byte* partials, int* arrivals) {
  const Linear4bitShape& shape = problem.shape;
  return {first_block,
          BlockScales(call.weight),
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
          codes_ahead(shape, call.weight)};
}

template <typename T, int kColumnTiles>
void launch_kernel(const Products<T>& products, int blocks, cudaStream_t stream) {
  constexpr std::uint32_t kShared = SharedMemory<kColumnTiles>::kBytes;
  const auto kernel = warpgroup_kernel<T, kColumnTiles>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  launch_early(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, kShared, stream, products);
}

/// Products of one input in one launch behind the one that lays it out; of fewer than kMostProducts the last ones are
/// without thread blocks.
template <typename T>
void launch(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls,
            std::span<const Cut> cuts) {
  int arrival_count = 0;
  for (const Cut& cut : cuts) arrival_count += cut.arrivals;
  auto* const packed_x = static_cast<std::byte*>(calls[0].workspace);
  auto* arrivals = reinterpret_cast<int*>(packed_x + cuts[0].packed_bytes);
  auto* partials = reinterpret_cast<std::byte*>(arrivals + arrival_count);
  pack<T>(*problems[0], calls[0], cuts[0], packed_x, arrivals, arrival_count);
  std::vector<Task<T>> tasks;
  int blocks = 0;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    tasks.push_back(task_of<T>(*problems[i], calls[i], cuts[i], blocks, packed_x, partials, arrivals));
    blocks += cuts[i].split.workers;
    arrivals += cuts[i].arrivals;
    partials += cuts[i].partial_bytes;
  }
  while (tasks.size() < kMostProducts) {
    tasks.push_back(tasks.back());
    tasks.back().first_block = blocks;
  }
  Products<T> products{{tasks[0], tasks[1], tasks[2]}, {}};
  for (std::size_t i = 0; i < problems.size(); ++i) {
    products.codes[i] = code_map(problems[i]->shape, calls[i].weight.codes, kStep / 2, kTileRows);
  }
  switch (cuts[0].column_tiles) {
    case 1:
      return launch_kernel<T, 1>(products, blocks, calls[0].stream);
    case 2:
      return launch_kernel<T, 2>(products, blocks, calls[0].stream);
    case 4:
      return launch_kernel<T, 4>(products, blocks, calls[0].stream);
    default:
      return launch_kernel<T, 8>(products, blocks, calls[0].stream);
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
  const Linear4bitProblem* const problems[] = {&problem};
  return bytes_of(cuts_of(problems));
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitProblem* const problems[] = {&problem};
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) {
    launch<T>(problems, {&call, 1}, cuts_of(problems));
  });
}

bool run_together(std::span<const Linear4bitProblem* const> problems, std::span<const Linear4bitCall> calls,
                  std::size_t available) {
  const std::vector<Cut> cuts = cuts_of(problems);
  if (problems.size() > kMostProducts || bytes_of(cuts) > available) return false;
  dispatch_16bit(problems[0]->shape.dtype,
                 [&]<typename T>(std::type_identity<T>) { launch<T>(problems, calls, cuts); });
  return true;
}

}  // namespace qshard::optimized::warpgroup
