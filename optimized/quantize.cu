#include <bit>
#include <cfloat>

#include "optimized/cuda_check.h"
#include "optimized/device_math.cuh"
#include "optimized/interval_table.cuh"
#include "optimized/quantize.h"
#include "optimized/quantize_tiles.h"

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
  static constexpr int kWords = kRun * sizeof(T) / sizeof(uint4);
  uint4 words[kWords];

  __device__ __forceinline__ float operator[](int e) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(word(e));
    } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      return __uint_as_float(e % 2 == 0 ? word(e / 2) << 16 : word(e / 2) & 0xFFFF0000U);
    } else {
      return __half2float(__ushort_as_half(static_cast<unsigned short>(word(e / 2) >> (e % 2 * 16))));
    }
  }

 private:
  __device__ __forceinline__ std::uint32_t word(int i) const {
    const uint4 quad = words[i / 4];
    return i % 4 == 0 ? quad.x : i % 4 == 1 ? quad.y : i % 4 == 2 ? quad.z : quad.w;
  }
};

/// Loads the run at `first`; elements from `elements` on are zeros.
template <typename T>
__device__ __forceinline__ Run<T> load_run(const T* weight, std::int64_t first, std::int64_t elements) {
  Run<T> run{};
  if (first + kRun <= elements) {
#pragma unroll
    for (int i = 0; i < Run<T>::kWords; ++i) {
      run.words[i] = __ldcs(reinterpret_cast<const uint4*>(weight + first) + i);
    }
  } else if (first < elements) {
    T padded[kRun] = {};
    for (int e = 0; e < kRun; ++e) {
      if (first + e < elements) padded[e] = weight[first + e];
    }
    memcpy(run.words, padded, sizeof padded);
  }
  return run;
}

/// The code of a scaled element.
template <bool kNf4>
__device__ __forceinline__ std::uint32_t code_of(float scaled, const IntervalTable& table) {
  const std::uint32_t offset = IntervalTable::row_offset<kNf4>(scaled);
  const auto row = [offset](const auto* column) {
    return *reinterpret_cast<decltype(column)>(reinterpret_cast<const char*>(column) + offset);
  };
  const float magnitude = kNf4 ? scaled : fabsf(scaled);
  const std::uint32_t codes = row(table.codes);
  std::uint32_t code = (magnitude > row(table.threshold) ? codes >> 4 : codes) & 15U;
  if (!kNf4 && scaled < 0.0F) code |= 8U;
  return code;
}

/// Sets every chunk's value to the maximum over its block, for blocks of several chunks (more than 256 elements).
__device__ __forceinline__ void combine_chunks(float (&largest)[kChunks], int block_shift) {
  __shared__ float chunk_largest[kChunks * kWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    if (threadIdx.x % 32 == 0) chunk_largest[chunk * kWarps + warp] = largest[chunk];
  }
  __syncthreads();
  const int chunks_a_block = (1 << block_shift) / kChunkElements;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int begin = (chunk * kWarps + warp) / chunks_a_block * chunks_a_block;
    for (int i = begin; i < begin + chunks_a_block; ++i) largest[chunk] = max_ftz(largest[chunk], chunk_largest[i]);
  }
}

/// The sum over the thread block of `value`, in a fixed order; valid in thread 0.
__device__ __forceinline__ float sum_of_threads(float value) {
  __shared__ float warp_sums[kWarps];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0F;
  if (threadIdx.x == 0) {
    for (int warp = 0; warp < kWarps; ++warp) sum += warp_sums[warp];
  }
  return sum;
}

/// One tile of kQuantizeTile elements a thread block. A warp reads 256 consecutive elements at once, eight a lane;
/// lanes that share a block find its absmax by shuffles, warps that share a longer block through shared memory.
template <typename T, bool kNf4>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const T* weight, const __grid_constant__ IntervalTable intervals, Task task) {
  const std::int64_t first = blockIdx.x * kQuantizeTile + threadIdx.x * kRun;
  Run<T> runs[kChunks];
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    runs[chunk] = load_run(weight, first + chunk * kChunkStride, task.elements);
  }

  __shared__ IntervalTable table;
  if (threadIdx.x < IntervalTable::kCells) {
    table.threshold[threadIdx.x] = intervals.threshold[threadIdx.x];
    table.codes[threadIdx.x] = intervals.codes[threadIdx.x];
  }
  __syncthreads();

  float largest[kChunks];
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    largest[chunk] = -FLT_MAX;
#pragma unroll
    for (int e = 0; e < kRun; ++e) largest[chunk] = max_ftz(largest[chunk], fabsf(runs[chunk][e]));
  }
  const int lanes_a_block = min(32, (1 << task.block_shift) / kRun);
  for (int lanes = 1; lanes < lanes_a_block; lanes *= 2) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      largest[chunk] = max_ftz(largest[chunk], __shfl_xor_sync(kAllLanes, largest[chunk], lanes));
    }
  }
  if (task.block_shift > 8) combine_chunks(largest, task.block_shift);

  float sum = 0.0F;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const std::int64_t i = first + chunk * kChunkStride;
    if (i >= task.elements) continue;
    if ((i & ((1 << task.block_shift) - 1)) == 0) {
      task.absmax[i >> task.block_shift] = largest[chunk];
      sum += largest[chunk];
    }
    const float reciprocal = reciprocal_ftz(largest[chunk]);
    std::uint32_t word = 0;
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      const float scaled = multiply_ftz(runs[chunk][e], reciprocal);
      word |= code_of<kNf4>(scaled, table) << (8 * (e / 2) + (e % 2 == 0 ? 4 : 0));
    }
    if (i + kRun <= task.elements) {
      __stcs(reinterpret_cast<std::uint32_t*>(task.codes + i / 2), word);
    } else {
      for (int byte = 0; i + 2 * byte < task.elements; ++byte) {
        task.codes[i / 2 + byte] = static_cast<std::uint8_t>(word >> (8 * byte));
      }
    }
  }
  if (task.tile_sums != nullptr) {
    sum = sum_of_threads(sum);
    if (threadIdx.x == 0) task.tile_sums[blockIdx.x] = sum;
  }
}

template <typename T>
void launch(const void* weight, QuantType quant_type, const Task& task, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>((task.elements + kQuantizeTile - 1) / kQuantizeTile);
  const auto* elements = static_cast<const T*>(weight);
  if (quant_type == QuantType::nf4) {
    quantize_kernel<T, true><<<tiles, kThreads, 0, stream>>>(elements, IntervalTable::make<true>(), task);
  } else {
    quantize_kernel<T, false><<<tiles, kThreads, 0, stream>>>(elements, IntervalTable::make<false>(), task);
  }
  QSHARD_CUDA_CHECK(cudaGetLastError());
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
  switch (dtype) {
    case DType::f16:
      return launch<__half>(weight, quant_type, task, stream);
    case DType::bf16:
      return launch<__nv_bfloat16>(weight, quant_type, task, stream);
    default:
      return launch<float>(weight, quant_type, task, stream);
  }
}

void quantize(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
              std::uint8_t* codes, float* absmax, cudaStream_t stream) {
  quantize_tiles(weight, dtype, elements, quant_type, blocksize, codes, absmax, nullptr, stream);
}

}  // namespace qshard::optimized
