#include <bit>

#include "optimized/cuda_check.h"
#include "optimized/dequantize.h"
#include "optimized/dequantize_warp.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kChunks = 4;  // independent loads in flight a thread

__device__ __forceinline__ void store_one(float* out, float value) {
  *out = value;
}

template <typename T>
__device__ __forceinline__ void store_one(T* out, float value) {
  *reinterpret_cast<std::uint16_t*>(out) = static_cast<std::uint16_t>(round_pair<T>(value, 0.0F));
}

template <typename T>
constexpr int kWarpElements = kChunks* kChunkElements<T>;
template <typename T>
constexpr int kTileElements = kThreads / 32 * kWarpElements<T>;

/// The last thread block's elements, one by one.
template <typename T>
__device__ void rebuild_tail(const std::uint8_t* codes, const BlockScales& scales, const CodebookValues& codebook,
                             int block_shift, std::int64_t first, std::int64_t elements, T* out) {
  for (std::int64_t i = first + threadIdx.x; i < elements; i += kThreads) {
    const int code = codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
    store_one(out + i, multiply_ftz(codebook.value[code], scales[i >> block_shift]));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const std::uint8_t* codes, BlockScales scales, const __grid_constant__ CodebookValues codebook,
                      int block_shift, std::int64_t elements, T* out) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTileElements<T>;
  if (first + kTileElements<T> <= elements) {
    const std::int64_t warp_first = first + threadIdx.x / 32 * kWarpElements<T>;
    rebuild_warp<T, kChunks>(codes, scales, codebook.value[threadIdx.x % 16], block_shift, warp_first,
                             out + warp_first);
  } else {
    rebuild_tail(codes, scales, codebook, block_shift, first, elements, out);
  }
}

template <typename T>
void launch(const DeviceWeight4bit& weight, void* out, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(block_count(weight.elements, kTileElements<T>));
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
