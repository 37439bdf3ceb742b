#include <bit>
#include <type_traits>

#include "optimized/block_absmax.cuh"
#include "optimized/code_lookup.cuh"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/quantize.h"
#include "optimized/quantize_run.cuh"
#include "optimized/quantize_tiles.h"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kChunkElements = 32 * kRun;  // of a warp, at once
constexpr int kChunks = 4;                 // of a warp, one behind the other; their loads are in flight together
constexpr int kWarpElements = kChunks * kChunkElements;
static_assert(kQuantizeTile == kWarps * kWarpElements);

/// Where things go; the same for all kernels.
struct Task {
  std::int64_t elements;
  unsigned whole_tiles;
  int block_shift;  // log2 of the block size
  std::uint8_t* codes;
  float* absmax;
  float* tile_sums;  // null: not wanted
};

/// Sets every chunk's value to the maximum over its block, for blocks of several chunks (more than 256 elements): each
/// lane takes a chunk of the tile, lanes that share a block find its maximum by shuffles.
__device__ __forceinline__ void combine_chunks(float (&largest)[kChunks], int block_shift) {
  static_assert(kChunks * kWarps == 32);
  constexpr unsigned kAllLanes = 0xFFFFFFFFU;
  __shared__ float chunk_largest[32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    if (lane == 0) chunk_largest[warp * kChunks + chunk] = largest[chunk];
  }
  __syncthreads();
  float combined = chunk_largest[lane];
  const int chunks_a_block = (1 << block_shift) / kChunkElements;
  for (int chunks = 1; chunks < chunks_a_block; chunks *= 2) {
    combined = max_ftz(combined, __shfl_xor_sync(kAllLanes, combined, chunks));
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    largest[chunk] = __shfl_sync(kAllLanes, combined, warp * kChunks + chunk);
  }
}

/// The sums of the tile's warps. The last warp adds them up, the others go on at once.
struct TileSum {
  static constexpr int kBarrier = 1;
  float (&of_warp)[kWarps];

  /// `sum`: a lane's share. Of the `lanes` neighbouring ones that share a block the first one's counts.
  __device__ __forceinline__ void add(float sum, unsigned lanes) const {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      if (distance >= lanes) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, distance);
    }
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
    if (!adds_up()) named_barrier_arrive<kBarrier>(kThreads);
  }

  __device__ __forceinline__ void store(float* total) const {
    if (!adds_up()) return;
    named_barrier_sync<kBarrier, kThreads>();
    const float sum = lanes_reduce<kWarps>(of_warp[threadIdx.x % kWarps], Sum());
    if (threadIdx.x % 32 == 0) *total = sum;
  }

 private:
  __device__ __forceinline__ static bool adds_up() {
    return threadIdx.x / 32 >= kWarps - 1;
  }
};

/// Stores the absmax values of a warp's blocks, which have at most a chunk's elements each. `absmax`: where the first
/// one goes; no more than `blocks` exist. The values lie one behind the other, and the warp stores all of them at once:
/// of blocks of 64 elements these are 64 bytes, two sectors of memory. One store a chunk wrote half a sector each,
/// which took 4 % of the time of large weights on an H200.
__device__ __forceinline__ void store_absmax(float* absmax, const float (&largest)[kChunks], unsigned lanes,
                                             std::int64_t blocks) {
  const unsigned lane = threadIdx.x % 32;
  // Of the lanes that share a block the first stores the block of chunk 0, the second that of chunk 1, and so on.
  const unsigned own_chunk = lane % lanes;
  float value = largest[0];
#pragma unroll
  for (int chunk = 1; chunk < kChunks; ++chunk) value = own_chunk == chunk ? largest[chunk] : value;
  const unsigned block = (own_chunk * 32 + lane) / lanes;
  if (own_chunk < kChunks && block < blocks) absmax[block] = value;
}

/// Quantizes a tile; kWhole: all its elements exist. A warp quantizes 1,024 consecutive elements: four chunks of 256,
/// of which each lane has eight elements. Lanes that share a block find its absmax by shuffles, chunks that share a
/// longer block through shared memory.
template <bool kWhole, typename T, typename Lookup>
__device__ __forceinline__ void quantize_tile(const T* weight, const Lookup& lookup, const Task& task,
                                              int block_shift) {
  const std::int64_t tile = blockIdx.x * kQuantizeTile;
  const unsigned warp_first = threadIdx.x / 32 * kWarpElements;
  const unsigned lane_first = warp_first + threadIdx.x % 32 * kRun;
  const T* source = weight + tile + lane_first;
  const std::int64_t count = task.elements - tile - lane_first;
  Run<T> runs[kChunks];
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    runs[chunk] = load_run<kWhole>(source + chunk * kChunkElements, count - chunk * kChunkElements);
  }

  const unsigned lanes = min(32U, (1U << block_shift) / kRun);  // that share a block
  float largest[kChunks];
  block_absmax(runs, lanes, largest);
  if (block_shift > 8) combine_chunks(largest, block_shift);

  float* const absmax = task.absmax + (tile + warp_first >> block_shift);
  if (block_shift <= 8) {
    const std::int64_t rest = task.elements - tile - warp_first;
    store_absmax(absmax, largest, lanes, kWhole ? kWarpElements : (rest + (1 << block_shift) - 1) >> block_shift);
  }
  float sum = 0.0F;
#pragma unroll
  for (unsigned chunk = 0; chunk < kChunks; ++chunk) {
    const bool begins_block = block_shift <= 8 || (warp_first + chunk * kChunkElements) % (1U << block_shift) == 0;
    if ((!kWhole && count <= chunk * kChunkElements) || !begins_block) continue;
    sum += largest[chunk];
    if (block_shift > 8 && threadIdx.x % 32 == 0) absmax[chunk * kChunkElements >> block_shift] = largest[chunk];
  }
  __shared__ float of_warp[kWarps];
  const TileSum tile_sum{of_warp};
  if (task.tile_sums != nullptr) tile_sum.add(sum, lanes);

  std::uint8_t* codes = task.codes + blockIdx.x * (kQuantizeTile / 2) + lane_first / 2;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const std::uint32_t word = lookup.codes(runs[chunk], largest[chunk]);
    store_codes<kWhole>(codes + chunk * kChunkElements / 2, word, count - chunk * kChunkElements);
  }
  if (task.tile_sums != nullptr) tile_sum.store(task.tile_sums + blockIdx.x);
}

/// Thread blocks that a multiprocessor has registers for at least: measured on an H200, where 3, 5, 6 and 8 are slower.
constexpr int kResident = 4;

/// kBlockShift: log2 of the block size, or 0 where it is known when the kernel runs. Where absmax is to be nested the
/// next kernel may begin at once: it waits for this one, and lets nobody begin itself.
template <typename T, bool kNf4, int kBlockShift>
__global__ void __launch_bounds__(kThreads, kResident)
    quantize_kernel(const T* weight, const __grid_constant__ Task task) {
  const CodeLookup<T, kNf4> lookup;
  grid_dependency_synchronize();
  if (task.tile_sums != nullptr) trigger_programmatic_launch_completion();
  if (blockIdx.x < task.whole_tiles) {
    quantize_tile<true>(weight, lookup, task, kBlockShift > 0 ? kBlockShift : task.block_shift);
  } else {
    quantize_tile<false>(weight, lookup, task, task.block_shift);
  }
}

template <typename T, bool kNf4>
void launch(const void* weight, const Task& task, cudaStream_t stream) {
  constexpr int kUsualShift = 6;  // blocks of 64 elements
  const auto tiles = static_cast<unsigned>((task.elements + kQuantizeTile - 1) / kQuantizeTile);
  const auto kernel =
      task.block_shift == kUsualShift ? quantize_kernel<T, kNf4, kUsualShift> : quantize_kernel<T, kNf4, 0>;
  launch_early(kernel, dim3(tiles), kThreads, 0, stream, static_cast<const T*>(weight), task);
}

template <typename T>
void launch(const void* weight, QuantType quant_type, const Task& task, cudaStream_t stream) {
  return quant_type == QuantType::nf4 ? launch<T, true>(weight, task, stream) : launch<T, false>(weight, task, stream);
}

}  // namespace

void quantize_tiles(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
                    std::uint8_t* codes, float* absmax, float* tile_sums, cudaStream_t stream) {
  check_floating(dtype, "the dtype of a weight to quantize");
  check_at_least(elements, 1, "the number of elements to quantize");
  check_blocksize(blocksize);
  check_pointer(weight, 16, "the weight to quantize");
  check_pointer(codes, 4, "the output for packed codes");
  check_pointer(absmax, alignof(float), "the output for absmax");
  const Task task{elements,
                  static_cast<unsigned>(elements / kQuantizeTile),
                  std::countr_zero(static_cast<unsigned>(blocksize)),
                  codes,
                  absmax,
                  tile_sums};
  dispatch_floating(dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(weight, quant_type, task, stream); });
}

void quantize(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
              std::uint8_t* codes, float* absmax, cudaStream_t stream) {
  quantize_tiles(weight, dtype, elements, quant_type, blocksize, codes, absmax, nullptr, stream);
}

}  // namespace qshard::optimized
