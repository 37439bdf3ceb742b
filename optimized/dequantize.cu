#include <bit>

#include "optimized/cuda_check.h"
#include "optimized/dequantize.h"
#include "optimized/device_math.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kChunks = 4;  // independent loads in flight a thread

/// Elements a thread writes at once: 16 bytes, so that a warp's reads and writes are both contiguous.
template <typename T>
constexpr int kVector = 16 / sizeof(T);

/// Bit position in a little-endian word of packed codes of its element `e`: the first of each two is the high nibble.
__device__ constexpr int nibble_shift(int e) {
  return 8 * (e / 2) + (e % 2 == 0 ? 4 : 0);
}

/// The packed codes of `count` (at most 8) elements from `codes` on.
template <int kCount>
__device__ __forceinline__ std::uint32_t load_codes(const std::uint8_t* codes, std::int64_t count) {
  if (count >= kCount) {
    if constexpr (kCount == 8) return __ldcs(reinterpret_cast<const std::uint32_t*>(codes));
    if constexpr (kCount == 4) return __ldcs(reinterpret_cast<const std::uint16_t*>(codes));
  }
  std::uint32_t word = 0;
  for (int byte = 0; 2 * byte < count; ++byte) word |= static_cast<std::uint32_t>(codes[byte]) << (8 * byte);
  return word;
}

__device__ __forceinline__ void store(float* out, const float (&values)[4]) {
  *reinterpret_cast<float4*>(out) = make_float4(values[0], values[1], values[2], values[3]);
}

template <typename T>
__device__ __forceinline__ void store(T* out, const float (&values)[8]) {
  *reinterpret_cast<uint4*>(out) = make_uint4(round_pair<T>(values[0], values[1]), round_pair<T>(values[2], values[3]),
                                              round_pair<T>(values[4], values[5]), round_pair<T>(values[6], values[7]));
}

__device__ __forceinline__ void store_one(float* out, float value) {
  *out = value;
}

template <typename T>
__device__ __forceinline__ void store_one(T* out, float value) {
  *reinterpret_cast<std::uint16_t*>(out) = static_cast<std::uint16_t>(round_pair<T>(value, 0.0F));
}

/// Each thread rebuilds kChunks runs of kVector elements, all of one block each. Lane l keeps codebook entry l % 16 in
/// a register, and a shuffle is the table look-up: no table in memory and no bank conflicts.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const std::uint8_t* codes, BlockScales scales, CodebookValues codebook, int block_shift,
                      std::int64_t elements, T* out) {
  constexpr int kRun = kVector<T>;
  const float entry = codebook.value[threadIdx.x % 16];
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kThreads * kRun * kChunks) + threadIdx.x * kRun;

  std::uint32_t word[kChunks] = {};
  float scale[kChunks] = {};
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const std::int64_t i = first + chunk * (kThreads * kRun);
    if (i < elements) word[chunk] = load_codes<kRun>(codes + i / 2, elements - i);
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const std::int64_t i = first + chunk * (kThreads * kRun);
    if (i < elements) scale[chunk] = scales[i >> block_shift];
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const std::int64_t i = first + chunk * (kThreads * kRun);
    float values[kRun];
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      const float centroid = __shfl_sync(0xFFFFFFFFU, entry, static_cast<int>(word[chunk] >> nibble_shift(e)), 16);
      values[e] = multiply_ftz(centroid, scale[chunk]);
    }
    if (i + kRun <= elements) {
      store(out + i, values);
    } else {
#pragma unroll
      for (int e = 0; e < kRun; ++e) {
        if (i + e < elements) store_one(out + i + e, values[e]);
      }
    }
  }
}

template <typename T>
void launch(const DeviceWeight4bit& weight, void* out, cudaStream_t stream) {
  constexpr std::int64_t kTile = kThreads * kVector<T> * kChunks;
  const auto tiles = static_cast<unsigned>((weight.elements + kTile - 1) / kTile);
  const int block_shift = std::countr_zero(static_cast<unsigned>(weight.blocksize));
  dequantize_kernel<T><<<tiles, kThreads, 0, stream>>>(weight.codes, BlockScales(weight),
                                                       CodebookValues(weight.quant_type), block_shift, weight.elements,
                                                       static_cast<T*>(out));
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void dequantize(const DeviceWeight4bit& weight, DType dtype, void* out, cudaStream_t stream) {
  check_weight(weight);
  check_floating(dtype, "the dtype of a dequantized weight");
  check_pointer(out, 16, "the dequantized weight");
  switch (dtype) {
    case DType::f16:
      return launch<__half>(weight, out, stream);
    case DType::bf16:
      return launch<__nv_bfloat16>(weight, out, stream);
    default:
      return launch<float>(weight, out, stream);
  }
}

}  // namespace qshard::optimized
