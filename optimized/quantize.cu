#include <bit>
#include <cfloat>
#include <type_traits>

#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device_math.cuh"
#include "optimized/interval_table.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/quantize.h"
#include "optimized/quantize_tiles.h"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRun = 8;                    // consecutive elements of a thread: one 32-bit word of codes
constexpr int kChunkElements = 32 * kRun;  // of a warp, at once
constexpr int kChunks = 4;                 // of a warp, in all: its independent loads in flight
constexpr int kChunkStride = kThreads * kRun;
static_assert(kQuantizeTile == kChunks * kChunkStride);

/// Where things go; the same for all kernels.
struct Task {
  std::int64_t elements;
  int block_shift;  // log2 of the block size
  std::uint8_t* codes;
  float* absmax;
  float* tile_sums;  // null: not wanted
};

/// Eight elements as they lie in memory.
template <typename T>
struct Run {
  static constexpr int kWords = kRun * sizeof(T) / sizeof(std::uint32_t);
  std::uint32_t words[kWords];

  __device__ __forceinline__ float operator[](int e) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(words[e]);
    } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      return __uint_as_float(e % 2 == 0 ? words[e / 2] << 16 : words[e / 2] & 0xFFFF0000U);
    } else {
      return __half2float(__ushort_as_half(static_cast<unsigned short>(words[e / 2] >> (e % 2 * 16))));
    }
  }

  /// The largest magnitude, -FLT_MAX where all are NaN.
  __device__ __forceinline__ float largest() const {
    float result = -FLT_MAX;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int e = 0; e < kRun; ++e) result = max_ftz(result, fabsf((*this)[e]));
    } else {
      using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
      Pair largest = __habs2(reinterpret_cast<const Pair&>(words[0]));
#pragma unroll
      for (int i = 1; i < kWords; ++i) largest = __hmax2(largest, __habs2(reinterpret_cast<const Pair&>(words[i])));
      result = max_ftz(max_ftz(result, to_float(largest.x)), to_float(largest.y));
    }
    return result;
  }
};

/// Loads a run of which `count` elements exist; zeros stand for the others.
template <bool kWhole, typename T>
__device__ __forceinline__ Run<T> load_run(const T* weight, std::int64_t count) {
  Run<T> run{};
  if (kWhole || count >= kRun) {
#pragma unroll
    for (int i = 0; i < Run<T>::kWords / 4; ++i) {
      const uint4 quad = __ldcs(reinterpret_cast<const uint4*>(weight) + i);
      run.words[4 * i] = quad.x;
      run.words[4 * i + 1] = quad.y;
      run.words[4 * i + 2] = quad.z;
      run.words[4 * i + 3] = quad.w;
    }
  } else {
    T padded[kRun] = {};
    for (int e = 0; e < count; ++e) padded[e] = weight[e];
    memcpy(run.words, padded, sizeof padded);
  }
  return run;
}

/// sum += addend where a > b, without a branch.
__device__ __forceinline__ void add_if_above(std::uint32_t& sum, float a, float b, std::uint32_t addend) {
  asm("{.reg .pred above; setp.gt.f32 above, %1, %2; @above add.u32 %0, %0, %3;}"
      : "+r"(sum)
      : "f"(a), "f"(b), "r"(addend));
}

/// The codes of a run whose block has this reciprocal of absmax; the first of each two is the high nibble.
template <bool kNf4, typename T>
__device__ __forceinline__ std::uint32_t codes_of(const Run<T>& run, float reciprocal, const IntervalTable& table) {
  std::uint32_t word = 0;
#pragma unroll
  for (int e = 0; e < kRun; ++e) {
    const int shift = 8 * (e / 2) + (e % 2 == 0 ? 4 : 0);
    const float scaled = multiply_ftz(run[e], reciprocal);
    const std::uint32_t offset = IntervalTable::row_offset<kNf4>(scaled);
    const auto row = [offset](const auto* column) {
      return *reinterpret_cast<decltype(column)>(reinterpret_cast<const char*>(column) + offset);
    };
    word += row(table.below) << shift;
    add_if_above(word, kNf4 ? scaled : fabsf(scaled), row(table.threshold), 1U << shift);
    if constexpr (!kNf4) add_if_above(word, 0.0F, scaled, 8U << shift);
  }
  return kNf4 ? word : fp4_codes(word);
}

/// Sets every chunk's value to the maximum over its block, for blocks of several chunks (more than 256 elements): each
/// lane takes a chunk of the tile, lanes that share a block find its maximum by shuffles.
__device__ __forceinline__ void combine_chunks(float (&largest)[kChunks], int block_shift) {
  static_assert(kChunks * kWarps == 32);
  __shared__ float chunk_largest[32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    if (lane == 0) chunk_largest[chunk * kWarps + warp] = largest[chunk];
  }
  __syncthreads();
  float combined = chunk_largest[lane];
  const int chunks_a_block = (1 << block_shift) / kChunkElements;
  for (int chunks = 1; chunks < chunks_a_block; chunks *= 2) {
    combined = max_ftz(combined, __shfl_xor_sync(kAllLanes, combined, chunks));
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    largest[chunk] = __shfl_sync(kAllLanes, combined, chunk * kWarps + warp);
  }
}

/// Quantizes a tile; kWhole: all its elements exist. A warp reads 256 consecutive elements at once, eight a lane; lanes
/// that share a block find its absmax by shuffles, warps that share a longer block through shared memory.
template <bool kWhole, bool kNf4, typename T>
__device__ __forceinline__ void quantize_tile(const T* weight, const IntervalTable& intervals, const Task& task) {
  const std::int64_t tile = blockIdx.x * kQuantizeTile;
  const int lane_first = static_cast<int>(threadIdx.x) * kRun;
  const T* source = weight + tile + lane_first;
  const std::int64_t count = task.elements - tile - lane_first;
  Run<T> runs[kChunks];
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    runs[chunk] = load_run<kWhole>(source + chunk * kChunkStride, count - chunk * kChunkStride);
  }

  __shared__ IntervalTable table;
  if (threadIdx.x < IntervalTable::kCells) {
    table.threshold[threadIdx.x] = intervals.threshold[threadIdx.x];
    table.below[threadIdx.x] = intervals.below[threadIdx.x];
  }
  __syncthreads();

  float largest[kChunks];
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) largest[chunk] = runs[chunk].largest();
  const int lanes_a_block = min(32, (1 << task.block_shift) / kRun);
  for (int lanes = 1; lanes < lanes_a_block; lanes *= 2) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      largest[chunk] = max_ftz(largest[chunk], __shfl_xor_sync(kAllLanes, largest[chunk], lanes));
    }
  }
  if (task.block_shift > 8) combine_chunks(largest, task.block_shift);

  std::uint8_t* codes = task.codes + (tile + lane_first) / 2;
  float* absmax = task.absmax + (tile >> task.block_shift);
  float sum = 0.0F;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int first = lane_first + chunk * kChunkStride;
    const std::int64_t left = count - chunk * kChunkStride;
    if (!kWhole && left <= 0) continue;
    if ((first & ((1 << task.block_shift) - 1)) == 0) {
      absmax[first >> task.block_shift] = largest[chunk];
      sum += largest[chunk];
    }
    const std::uint32_t word = codes_of<kNf4>(runs[chunk], reciprocal_ftz(largest[chunk]), table);
    if (kWhole || left >= kRun) {
      __stcs(reinterpret_cast<std::uint32_t*>(codes + chunk * kChunkStride / 2), word);
    } else {
      for (int byte = 0; 2 * byte < left; ++byte) {
        codes[chunk * kChunkStride / 2 + byte] = static_cast<std::uint8_t>(word >> (8 * byte));
      }
    }
  }
  if (task.tile_sums != nullptr) {
    sum = team_reduce<kThreads>(sum, Sum());
    if (threadIdx.x == 0) task.tile_sums[blockIdx.x] = sum;
  }
}

/// Where absmax is to be nested the next kernel may begin at once: it waits for this one, and lets nobody begin itself.
template <typename T, bool kNf4>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const T* weight, const __grid_constant__ IntervalTable intervals,
                    const __grid_constant__ Task task) {
  grid_dependency_synchronize();
  if (task.tile_sums != nullptr) trigger_programmatic_launch_completion();
  if ((blockIdx.x + 1) * kQuantizeTile <= task.elements) {
    quantize_tile<true, kNf4>(weight, intervals, task);
  } else {
    quantize_tile<false, kNf4>(weight, intervals, task);
  }
}

template <typename T>
void launch(const void* weight, QuantType quant_type, const Task& task, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>((task.elements + kQuantizeTile - 1) / kQuantizeTile);
  const auto* elements = static_cast<const T*>(weight);
  if (quant_type == QuantType::nf4) {
    launch_early(quantize_kernel<T, true>, dim3(tiles), kThreads, 0, stream, elements, IntervalTable::make<true>(),
                 task);
  } else {
    launch_early(quantize_kernel<T, false>, dim3(tiles), kThreads, 0, stream, elements, IntervalTable::make<false>(),
                 task);
  }
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
  const Task task{elements, std::countr_zero(static_cast<unsigned>(blocksize)), codes, absmax, tile_sums};
  dispatch_floating(dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(weight, quant_type, task, stream); });
}

void quantize(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
              std::uint8_t* codes, float* absmax, cudaStream_t stream) {
  quantize_tiles(weight, dtype, elements, quant_type, blocksize, codes, absmax, nullptr, stream);
}

}  // namespace qshard::optimized
